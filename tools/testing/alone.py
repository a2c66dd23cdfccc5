"""Pytest plugin: what is marked ``alone`` runs beside no other test of the session.

It measures what a user is promised in seconds; another worker's test would take the processor from
it, and the promise would be judged by what happens to run beside it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_FOLDER = "dtjob_alone"


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Be in the room with others, or alone.

    Whoever waits to be alone has the gate meanwhile, so that nobody else comes in before.
    """
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


class Room:
    """The controller's folder, which all its workers use."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell each worker of it."""
        node.workerinput[_FOLDER] = self._folder.name

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """All workers have ended."""
        self._folder.cleanup()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test's timeout begins when it is its turn."""
    given: dict[str, Any] | None = getattr(item.config, "workerinput", None)
    if given is None:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with turn(Path(given[_FOLDER]), alone=alone):
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Room(), "dtjob-alone")
