"""No attempt begins before the one before it is closed, whatever the ledger takes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from dtjob_api.ledger.privacy_ledger import LedgerStatus, OrderState, OutcomeState
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import Action, End, EndKind
from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.ledger.backend import LedgerRejected, Versioned
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.gangs.gang_run import GangRun
from tests.support.gangs.leading import Ranks, an_end, follow, lease_as, order

pytestmark = pytest.mark.usefixtures("short_watches")


class Reluctant(FileLedger):
    """A ledger that takes no write for a while, and tells of each that it did not take."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.refuses = 0
        self.refused = asyncio.Event()

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        if self.refuses > 0:
            self.refuses -= 1
            self._loop.call_soon_threadsafe(self.refused.set)
            raise LedgerRejected("the ledger takes no write now")
        return super().replace_status(versioned, status)

    def listen(self) -> None:
        self._loop = asyncio.get_running_loop()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GangRun:
    """A pod's, whose patience with its ledger is short."""
    monkeypatch.setattr(Leader._without, "__defaults__", (0.01,))
    run = GangRun(tmp_path, workers=1, reserve=0, stays_after_outcome=True)
    run.ledger = Reluctant(run.ledger.path)
    run.create_ledger()
    return run


def lead(
    run: GangRun, scene: Callable[[Leader, Reluctant], object]
) -> tuple[LedgerStatus, WorkerReport]:
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)
    ledger = run.ledger
    assert isinstance(ledger, Reluctant)

    async def played() -> None:
        ledger.listen()
        leads = asyncio.create_task(leader.lead())
        async with asyncio.timeout(20):
            await scene(leader, ledger)  # type: ignore[misc]
        leads.cancel()

    asyncio.run(played())
    return run.ledger.read().ledger.status, current.report


async def end_with_a_lease(leader: Leader, ledger: Reluctant, run: GangRun, end: End) -> None:
    """Attempt 1 has leased, and its end is not taken at first."""
    await follow(leader, until=Action.RUN)
    lease_as(run, 1)
    ledger.refuses = 3
    await follow(leader, until=Action.END, attempt=1, ends=(end,))
    await follow(leader, until=Action.END)
    await ledger.refused.wait()


@pytest.mark.parametrize("reason", [Reason.LEDGER_UNREADABLE, Reason.STORAGE_FULL], ids=str)
def test_a_refusal_that_could_not_be_written_at_once_holds_all_the_same(
    run: GangRun, reason: Reason
) -> None:
    """Else each attempt would spend a lease, until the limit of restarts ends the job."""

    async def scene(leader: Leader, ledger: Reluctant) -> None:
        end = an_end(EndKind.HELD, reason)
        await end_with_a_lease(leader, ledger, run, end)
        while "then go on with --resume" not in str(leader._current.report.message):
            await asyncio.sleep(0.01)

    status, report = lead(run, scene)
    (record,) = status.attempts
    assert (record.reason, status.charged, status.outcome) == (reason, 5, None)
    assert record.hold is not None
    assert (report.state, report.reason) == (WorkerState.WAITING, reason)


@pytest.mark.parametrize("leases", [True, False], ids=["held", "looked at again"])
def test_an_order_that_comes_while_an_end_is_kept_is_answered_after_it(
    run: GangRun, leases: bool
) -> None:
    """Neither does the hold of the attempt outlive it, nor is it forgotten until another look."""

    async def scene(leader: Leader, ledger: Reluctant) -> None:
        await follow(leader, until=Action.RUN)
        if leases:
            lease_as(run, 1)
        ledger.refuses = 10**9
        end = an_end(EndKind.HELD, Reason.LEDGER_UNREADABLE)
        await follow(leader, until=Action.END, attempt=1, ends=(end,))
        await follow(leader, until=Action.END)
        await ledger.refused.wait()
        order(run, OrderState.RUN)
        leader._orders._hear(run.ledger.read())  # as its watch does in a moment
        for _ in range(2):  # the end is tried again, and the order not taken for known by that
            ledger.refused.clear()
            await ledger.refused.wait()
        ledger.refuses = 0
        await follow(leader, until=Action.RUN)
        while leader._current.report.attempt != 2:
            await asyncio.sleep(0.01)

    status, report = lead(run, scene)
    assert (status.attempt, status.attempts[0].reason) == (2, "LedgerUnreadable")
    assert (report.state, report.reason, report.message) == (WorkerState.RESTARTING, None, None)


def test_what_a_drained_pod_waited_for_is_reported_no_more(run: GangRun) -> None:
    async def scene(leader: Leader, ledger: Reluctant) -> None:
        end = an_end(EndKind.CRASHED, Reason.RANK_FAILED)
        await end_with_a_lease(leader, ledger, run, end)
        order(run, OrderState.DRAIN)
        while (
            run.ledger.read().ledger.status.drained != 2
            or leader._current.report.state != WorkerState.DRAINED
        ):
            await asyncio.sleep(0.01)

    _, report = lead(run, scene)
    assert (report.state, report.reason, report.message) == (WorkerState.DRAINED, None, None)


def test_a_restart_is_reported_with_its_own_message_alone(run: GangRun) -> None:
    """Not with the reason for which the ledger could not be written before."""

    async def scene(leader: Leader, ledger: Reluctant) -> None:
        end = an_end(EndKind.CRASHED, Reason.RANK_FAILED)
        await end_with_a_lease(leader, ledger, run, end)
        while leader._current.report.restarts != 1:
            await asyncio.sleep(0.01)

    _, report = lead(run, scene)
    assert (report.state, report.reason) == (WorkerState.RESTARTING, None)
    assert report.message


def test_a_stall_that_could_not_be_written_at_once_holds_all_the_same(run: GangRun) -> None:
    async def scene(leader: Leader, ledger: Reluctant) -> None:
        await end_with_a_lease(leader, ledger, run, an_end(EndKind.CRASHED, Reason.STALLED))
        while leader._current.report.reason != Reason.STALLED:
            await asyncio.sleep(0.01)

    status, _ = lead(run, scene)
    (record,) = status.attempts
    assert (record.reason, status.charged) == ("Stalled", 5)
    assert record.hold is not None


def test_a_failure_that_could_not_be_written_at_once_ends_the_job_all_the_same(
    run: GangRun,
) -> None:
    """As of the time when it was seen; the ledger may have taken nothing for hours."""
    before = datetime.now(UTC)

    async def scene(leader: Leader, ledger: Reluctant) -> None:
        failed = an_end(EndKind.FAILED, Reason.TASK_FAILED)
        await end_with_a_lease(leader, ledger, run, failed)
        seen.append(datetime.now(UTC))
        await follow(leader, until=Action.DONE)

    seen: list[datetime] = []
    status, _ = lead(run, scene)
    assert status.outcome is not None
    assert (status.attempt, status.outcome.state) == (1, OutcomeState.FAILED)
    assert before <= status.outcome.time <= seen[0]


def test_a_pod_that_is_to_leave_waits_for_no_ledger(run: GangRun) -> None:
    """It tries once more: what it could not write then, its successor takes for a lost worker."""

    async def scene(leader: Leader, ledger: Reluctant) -> None:
        await follow(leader, until=Action.RUN)
        lease_as(run, 1)
        ledger.refuses = 10**9
        end = an_end(EndKind.HELD, Reason.STORAGE_FULL)
        await follow(leader, until=Action.END, attempt=1, ends=(end,))
        await follow(leader, until=Action.END)
        await ledger.refused.wait()
        leader.terminating = True
        leader.wake()
        while not leader.left:
            await asyncio.sleep(0.01)

    status, report = lead(run, scene)
    assert (status.attempt, status.attempts[0].end, report.state) == (1, None, WorkerState.STOPPED)
