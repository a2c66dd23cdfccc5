"""Pytest plugin: a folder of the session that xdist's controller and all its workers share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_GIVEN = "dtjob_together"
_OURS = pytest.StashKey[TemporaryDirectory[str]]()


def folder(config: pytest.Config) -> Path | None:
    """The folder; None where the session has no workers."""
    if given := getattr(config, "workerinput", None):
        return Path(given[_GIVEN])
    ours = config.stash.get(_OURS, None)
    return None if ours is None else Path(ours.name)


class _Controller:
    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass it to a worker, before it starts."""
        stash = node.config.stash
        if _OURS not in stash:
            stash[_OURS] = TemporaryDirectory()
        node.workerinput[_GIVEN] = stash[_OURS].name

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """All workers have ended."""
        if (ours := config.stash.get(_OURS, None)) is not None:
            ours.cleanup()


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Controller(), "dtjob-together")
