"""For how long a leader waits for what it can't go on without: a ledger, room, a person."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_trainer.gang import leader as leading
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.ledger.backend import LedgerError, Versioned
from dtjob_trainer.ledger.durable import VolumeFull
from tests.support.gangs.gang_run import GangRun

Happens = Callable[[], None]


class Waits:
    """The waits of a leader: each passes at once, and something happens in it; others fail."""

    def __init__(self, happenings: Iterator[Happens]) -> None:
        self._happenings = happenings
        self.now, self.took = 0.0, list[float]()

    async def change(self, seconds: float) -> None:
        happens = next(self._happenings, None)
        assert happens is not None, "it waits though it has what it waits for"
        self.took.append(seconds)
        self.now += seconds
        happens()


@pytest.fixture
def run(tmp_path: Path) -> GangRun:
    run = GangRun(tmp_path, workers=1, stays_after_outcome=True)
    run.create_ledger()
    return run


@pytest.fixture
def leader(run: GangRun) -> Leader:
    """A pod's, which knows what the ledger says."""
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    made = Leader(run.config(0), run.ledger, current, structlog.get_logger(), lambda _: False)
    made._orders._hear(run.ledger.read())
    made._orders.take()
    return made


@pytest.fixture
def waits(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Let the leader wait, with what happens in each of its waits; how long they were."""

    def wait(*happenings: Happens, seconds: float = math.inf) -> list[float]:
        played = Waits(iter(happenings))
        monkeypatch.setattr(leader, "_change", played.change)
        monkeypatch.setattr(leading, "time", SimpleNamespace(monotonic=lambda: played.now))
        assert asyncio.run(leader._without(Reason.STORAGE_FULL, "full", seconds)) is None
        return played.took

    return wait


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LedgerError("no answer"), Reason.LEDGER_UNREADABLE),
        (VolumeFull(Path("journal"), 9, 0, "no space"), Reason.STORAGE_FULL),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_is_missing_has_a_reason(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    missed = []

    async def failing() -> None:
        raise error

    async def without(reason: Reason, _message: str) -> WorkerExit:
        missed.append(reason)
        return WorkerExit.HELD

    monkeypatch.setattr(leader, "_next", failing)
    monkeypatch.setattr(leader, "_without", without)
    assert asyncio.run(leader._lead()) == WorkerExit.HELD
    assert missed == [reason]


def nothing() -> None:
    """Somebody else's change."""


def order(leader: Leader, run: GangRun) -> None:
    """The watch hears another order."""
    newest = run.ledger.read()
    ordered = newest.ledger.spec.run.model_copy(update={"generation": 2})
    spec = newest.ledger.spec.model_copy(update={"run": ordered})
    leader._orders._hear(Versioned("2", newest.ledger.model_copy(update={"spec": spec})))


def test_who_is_to_stop_waits_no_more(leader: Leader, waits: Callable[..., object]) -> None:
    """Also where it waits for a person, which is for ever."""

    def stop() -> None:
        leader.terminating = True

    assert waits(nothing, stop) == [2.0, 2.0]
    assert waits() == []


def test_news_end_a_wait_and_are_no_news_to_the_next(
    leader: Leader, run: GangRun, waits: Callable[..., object]
) -> None:
    """Else a ledger that can't be read would be asked all the time."""
    assert waits(nothing, lambda: order(leader, run)) == [2.0, 2.0]
    assert waits(nothing, nothing, seconds=3) == [2.0, 1.0]


def test_news_from_before_the_wait_are_looked_at_at_once(
    leader: Leader, run: GangRun, waits: Callable[..., object]
) -> None:
    order(leader, run)
    assert waits() == []
    assert not leader._orders.has_news
