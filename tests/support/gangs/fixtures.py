"""What tests of workers share, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def start(tmp_path: Path, runs: list[GangRun]) -> Any:
    """Begins runs of a gang whose workers are all started."""

    def begin(**settings: Any) -> GangRun:
        run = GangRun(tmp_path, **settings)
        runs.append(run)
        run.create_ledger()
        run.start()
        return run

    return begin
