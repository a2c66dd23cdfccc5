"""How the leader ends a job that nobody else can end, and what it must not take for an end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path
from typing import Any

import pytest
import structlog

from dtjob_api.ledger.privacy_ledger import Lease, LedgerStatus, OutcomeState
from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, End, EndKind
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.patience import START_FACTOR
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.durable import VolumeUnusable
from dtjob_trainer.ledger.journal import Entry, Header, Journal
from dtjob_trainer.ledger.unrecorded import unrecorded_draws
from tests.support.gangs.gang_run import GangRun
from tests.support.gangs.leading import an_end, follow, lease_as, succeeded, write_status

pytestmark = pytest.mark.usefixtures("short_watches")


def a_leader(run: GangRun) -> Leader:
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    return Leader(run.config(0), run.ledger, current, structlog.get_logger(), lambda _: False)


def test_supervisor_that_dies_each_time_ends_the_job_as_max_restarts_says(tmp_path: Path) -> None:
    """Each of its attempts takes a lease, and none of them is seen to fail."""
    run = GangRun(tmp_path, workers=1, max_restarts=1)
    run.create_ledger()

    async def killed_in_an_attempt() -> None:
        leader = a_leader(run)
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading

    async def last_time() -> int:
        leader = a_leader(run)
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.DONE)
        return await leading

    for _ in range(2):
        asyncio.run(killed_in_an_attempt())
    assert run.ledger.read().ledger.status.outcome is None
    assert asyncio.run(last_time()) == WorkerExit.FAILED
    status = run.ledger.read().ledger.status
    assert status.attempt == 2
    assert status.outcome is not None
    assert status.outcome.reason is Reason.RESTARTS_EXHAUSTED


async def lead_to_a_late_failure(run: GangRun, **meanwhile: Any) -> int:
    """Rank 0 is reported to have failed after something was written to the ledger."""
    leader = a_leader(run)
    leading = asyncio.create_task(leader.lead())
    await follow(leader, until=Action.RUN)
    write_status(run, **meanwhile)
    failed = End(kind=EndKind.FAILED, rank=0, reason=Reason.TASK_FAILED, message="too late")
    await follow(leader, until=Action.END, attempt=1, ends=(failed,))
    await follow(leader, until=Action.DONE)
    return await leading


def test_what_a_start_finds_wrong_later_on_is_refused_and_counts_as_no_restart(
    tmp_path: Path,
) -> None:
    run = GangRun(tmp_path, workers=1, max_restarts=1)
    run.create_ledger()
    failed = End(kind=EndKind.FAILED, rank=0, reason=Reason.ENTRYPOINT_INVALID, message="gone")

    async def start(attempt: int) -> int:
        leader = a_leader(run)
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        if attempt == 1:
            lease_as(run, attempt)
            drained = End(kind=EndKind.DRAINED, rank=0, reason=Reason.STOPPED)
            leader.terminating = True
            await follow(leader, until=Action.END, attempt=attempt, ends=(drained,))
        else:
            await follow(leader, until=Action.END, attempt=attempt, ends=(failed,))
        await follow(leader, until=Action.DONE)
        return await leading

    codes = [asyncio.run(start(attempt)) for attempt in (1, 2, 3, 4)]
    assert codes == [WorkerExit.OK, WorkerExit.HELD, WorkerExit.HELD, WorkerExit.HELD]
    status = run.ledger.read().ledger.status
    assert status.outcome is None
    assert [record.reason for record in status.attempts[1:]] == ["EntrypointInvalid"] * 3


def leave_a_journal(run: GangRun) -> None:
    """Of draws that the ledger does not know: it was put back without its status."""
    assert run.state is not None
    uid = run.ledger.read().ledger.spec.job_uid
    journal = Journal(run.state, Header(uid, 4, 0))
    journal.create()
    journal.append(Entry(0, 5, 0))


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    "end",
    [
        an_end(EndKind.FAILED, Reason.ENTRYPOINT_INVALID),
        an_end(EndKind.FAILED, Reason.REPLICAS_DIVERGED),
        an_end(EndKind.CRASHED, Reason.RANK_FAILED),
    ],
    ids=lambda end: str(end.reason),
)
def test_no_outcome_is_written_while_the_volume_tells_of_more_draws(
    tmp_path: Path, end: End
) -> None:
    """It would be for good, with an epsilon of 0; a backup can still put the run right."""
    run = GangRun(tmp_path, workers=1, max_restarts=0)
    run.create_ledger()
    leave_a_journal(run)

    async def start(attempt: int) -> int:
        leader = a_leader(run)
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        await follow(leader, until=Action.END, attempt=attempt, ends=(end,))
        await follow(leader, until=Action.DONE)
        return await leading

    assert [asyncio.run(start(attempt)) for attempt in (1, 2)] == [WorkerExit.HELD] * 2
    status = run.ledger.read().ledger.status
    assert status.outcome is None
    if end.kind is EndKind.FAILED:
        assert [record.reason for record in status.attempts] == ["PrivacyStateLost"] * 2
        assert status.volume is not None, "the files may be gone when it is raised"


def test_who_looks_before_an_attempt_reads_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at before each one, by a process that has no torch."""
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()
    leave_a_journal(run)
    monkeypatch.delattr(CheckpointStore, "newest_whole")
    found = unrecorded_draws(run.ledger.read().ledger, run.config(0))
    assert found is not None
    assert found.proof is not None


def test_a_volume_that_is_away_tells_of_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()

    def away(*_: object) -> None:
        raise VolumeUnusable(tmp_path / "attempt-1", errno.EIO)

    monkeypatch.setattr("dtjob_trainer.ledger.volume.resume_point", away)
    found = unrecorded_draws(run.ledger.read().ledger, run.config(0))
    assert found is not None
    assert found.reason is Reason.STORAGE_UNUSABLE


def test_a_volume_that_nobody_can_read_tells_of_no_end(tmp_path: Path) -> None:
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()
    assert run.state is not None
    (run.state / "attempt-1").mkdir()
    (run.state / "attempt-1" / "journal").mkdir()
    found = unrecorded_draws(run.ledger.read().ledger, run.config(0))
    assert found is not None
    assert found.reason is Reason.PRIVACY_STATE_LOST
    assert "all reserved draws count as spent" in found.message
    assert found.proof is not None

    leased = LedgerStatus(
        attempt=1, charged=2, lease=Lease(attempt=1, from_draw=0, to_draw=2, from_step=0)
    )
    ledger = run.ledger.read().ledger.model_copy(update={"status": leased})
    found = unrecorded_draws(ledger, run.config(0))
    assert found is not None
    assert (found.reason, found.proof) == (Reason.PRIVACY_STATE_LOST, None)
    assert "put the volume right" in found.message


def test_coordinator_that_died_after_it_wrote_the_result_has_succeeded(tmp_path: Path) -> None:
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()
    assert asyncio.run(lead_to_a_late_failure(run, outcome=succeeded())) == WorkerExit.OK
    outcome = run.ledger.read().ledger.status.outcome
    assert outcome is not None
    assert outcome.state is OutcomeState.SUCCEEDED


def test_result_of_another_attempt_is_not_ours(tmp_path: Path) -> None:
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()
    code = asyncio.run(lead_to_a_late_failure(run, attempt=2, outcome=succeeded()))
    assert code == WorkerExit.SUPERSEDED


def test_stalled_attempt_tells_what_it_was_at(tmp_path: Path) -> None:
    """A long dry run is no step; who reads of one would look for a hung collective."""
    allowed = 30 * START_FACTOR
    run = GangRun(tmp_path, workers=1, stall_seconds=30)
    run.create_ledger()

    async def scene() -> End | None:
        leader = a_leader(run)
        await leader._orders.read()
        leader._current.update(stage="dry run on synthetic data")
        assert leader._stalled(leader._now() + allowed - 1) is None
        return leader._stalled(leader._now() + allowed + 1)

    end = asyncio.run(scene())
    assert end is not None
    assert f"no first step of the attempt for {allowed + 1} s" in end.message
    assert end.message.endswith("rank 0 was last at: dry run on synthetic data")
