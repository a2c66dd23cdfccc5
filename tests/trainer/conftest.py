"""What tests of real worker processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtjob_trainer.gang import orders
from tests.support.gangs.gang_run import GangRun


@pytest.fixture
def runs() -> Iterator[list[GangRun]]:
    started: list[GangRun] = []
    yield started
    for run in started:
        run.stop()


@pytest.fixture
def short_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an event loop waits for the thread in which the ledger is watched."""
    monkeypatch.setattr(orders, "_WATCH_SECONDS", 0.2)
