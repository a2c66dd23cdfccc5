"""Pytest plugin: what is marked `alone` runs beside no other test of the session.

It measures what a user is promised in seconds; another worker's test would take the processor from
it, and the promise would be judged by what happens to run beside it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing import together


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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test's timeout begins when it is its turn."""
    if (folder := together.folder(item.config)) is None:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with turn(folder, alone=alone):
        return (yield)
