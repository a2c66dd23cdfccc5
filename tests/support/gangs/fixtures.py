"""What tests of workers share, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtjob_trainer.gang import orders
from tests.support.gangs.gang_run import GangRun


@pytest.fixture
def runs() -> Iterator[list[GangRun]]:
    """Gangs that a test starts; what is left of them ends with the test."""
    started: list[GangRun] = []
    yield started
    for run in started:
        run.stop()


@pytest.fixture
def short_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an event loop waits for the thread in which the ledger is watched."""
    monkeypatch.setattr(orders, "_WATCH_SECONDS", 0.2)
