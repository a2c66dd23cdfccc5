"""The leader's orders reach ranks that are not there yet, or nothing waits for them (rule 10)."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from dtjob_api.ledger.privacy_ledger import OrderState
from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, Directive, End, EndKind, Hello
from dtjob_api.wire.pipe import Progress
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.gang import attempts, reception
from dtjob_trainer.gang import leader as leading
from dtjob_trainer.gang.consequences import record_end
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.identity.proof import HelloDenied, Speaker
from tests.support.gangs.gang_run import GangRun
from tests.support.gangs.leading import Ranks, an_end, follow, lease_as, order, write_status

pytestmark = pytest.mark.usefixtures("short_watches")


class Time:
    """The leader's time: the machine's, and what a test adds to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.added

    async def passes(self, leader: Leader, seconds: float) -> None:
        """The leader runs all the while, and looks twice a second."""
        for _ in range(round(2 * seconds)):
            self.added += 0.5
            leader.wake()
            await asyncio.sleep(0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(leading, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def a_leader(folder: Path, ranks: Ranks, workers: int = 1) -> tuple[Leader, GangRun]:
    run = GangRun(folder, workers=workers)
    run.create_ledger()
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    return Leader(run.config(0), run.ledger, current, structlog.get_logger(), ranks.tell), run


def test_drain_is_sent_until_a_rank_receives_it(tmp_path: Path) -> None:
    """A SIGTERM while the ranks are being started is not lost."""
    ranks = Ranks(deaf=2)
    leader, run = a_leader(tmp_path, ranks)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        await follow(leader, until=Action.RUN, attempt=1)
        leader.terminating = True
        leader.wake()
        async with asyncio.timeout(60):
            while ranks.asked < 3:
                await asyncio.sleep(0.02)
                leader.wake()
        drained = End(kind=EndKind.DRAINED, rank=0, reason=Reason.STOPPED)
        await follow(leader, until=Action.END, attempt=1, drain=True, ends=(drained,))
        await follow(leader, until=Action.DONE, drain=True)
        return await lead

    assert asyncio.run(scene()) == WorkerExit.OK
    assert ranks.asked == 3
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"


def test_worker_that_leaves_before_it_starts_ranks_ends_the_attempt(tmp_path: Path) -> None:
    """The others would wait for its ranks until they count as stalled."""
    ranks = Ranks(deaf=10**6)
    leader, run = a_leader(tmp_path, ranks)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        leader.terminating = True
        await follow(leader, until=Action.END, drain=True)
        await follow(leader, until=Action.DONE, drain=True)
        return await lead

    assert asyncio.run(scene()) == WorkerExit.OK
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"


def test_leader_that_stood_still_takes_nobody_for_lost_or_stalled(
    tmp_path: Path, clock: Time
) -> None:
    """Its own timers run out before the hellos that wait are read."""
    ranks = Ranks(deaf=0)
    leader, run = a_leader(tmp_path, ranks)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        await follow(leader, until=Action.RUN, attempt=1)
        clock.added += 10_000
        leader.terminating = True
        leader.wake()
        async with asyncio.timeout(60):
            while not ranks.asked:  # it has looked at everybody before
                await asyncio.sleep(0.02)
        drained = End(kind=EndKind.DRAINED, rank=0, reason=Reason.STOPPED)
        await follow(leader, until=Action.END, attempt=1, drain=True, ends=(drained,))
        await follow(leader, until=Action.DONE, drain=True)
        return await lead

    assert asyncio.run(scene()) == WorkerExit.OK
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"


def a_pod(folder: Path) -> tuple[Leader, GangRun, Ranks]:
    """Whose reserve covers no lost lease."""
    run, ranks = GangRun(folder, workers=1, reserve=0, stays_after_outcome=True), Ranks(0)
    run.create_ledger()
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), ranks.tell)
    return leader, run, ranks


def refused(reason: Reason) -> End:
    return End(kind=EndKind.HELD, rank=0, reason=reason, message="no")


@pytest.mark.parametrize("has_leased", [False, True], ids=["looked at again", "held"])
def test_a_pod_goes_on_at_once_when_its_ledger_is_raised(tmp_path: Path, has_leased: bool) -> None:
    """An administrator has put right what it waits for."""
    leader, run, _ = a_pod(tmp_path)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        if has_leased:
            lease_as(run, 1)
        behind = refused(Reason.PRIVACY_STATE_LOST)
        await follow(leader, until=Action.END, attempt=1, ends=(behind,))
        following = asyncio.create_task(follow(leader, until=Action.RUN))
        async with asyncio.timeout(20):
            while leader._current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.02)
            write_status(run, restored=1)
            await following
        leader.terminating = True
        leader.wake()
        await follow(leader, until=Action.END, drain=True)
        return await lead

    assert asyncio.run(scene()) == WorkerExit.OK
    first, _ = run.ledger.read().ledger.status.attempts
    assert first.reason == "PrivacyStateLost"


def test_a_ledger_that_was_raised_before_wakes_no_pod_that_waits(
    tmp_path: Path, clock: Time
) -> None:
    """Nor does any other write into the ledger: each look would be an attempt."""
    leader, run, _ = a_pod(tmp_path)
    write_status(run, attempt=1, restored=1)

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        full = refused(Reason.STORAGE_FULL)
        await follow(leader, until=Action.END, attempt=2, ends=(full,))
        await follow(leader, until=Action.END)
        async with asyncio.timeout(20):
            while leader._current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.02)
            write_status(run, initial_model_digest="sha256:0")
            while leader._orders._version != run.ledger.read().version:
                await asyncio.sleep(0.02)
        assert not leader._orders.has_news
        clock.added += leading._REFUSED_SECONDS / 2
        await clock.passes(leader, 0.5)
        assert leader._current.report.state == WorkerState.WAITING
        clock.added += leading._REFUSED_SECONDS / 2
        await follow(leader, until=Action.RUN)
        lead.cancel()

    asyncio.run(scene())
    assert run.ledger.read().ledger.status.attempt == 3


@pytest.mark.parametrize("has_leased", [False, True], ids=["looked at again", "held"])
def test_an_order_that_came_before_the_refusal_is_answered_at_once(
    tmp_path: Path, has_leased: bool
) -> None:
    """To drain, say, and the volume was full: nobody would give the order a second time."""
    leader, run, ranks = a_pod(tmp_path)

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        if has_leased:
            lease_as(run, 1)
        await follow(leader, until=Action.RUN, attempt=1)
        order(run, OrderState.DRAIN)
        async with asyncio.timeout(20):
            while not ranks.asked:
                await asyncio.sleep(0.02)
            full = refused(Reason.STORAGE_FULL)
            await follow(leader, until=Action.END, attempt=1, ends=(full,))
            await follow(leader, until=Action.END)
            while run.ledger.read().ledger.status.drained != 2:
                await asyncio.sleep(0.02)
        lead.cancel()

    asyncio.run(scene())


def test_a_local_run_that_would_be_held_ends_as_refused_and_is_begun_by_a_person(
    tmp_path: Path,
) -> None:
    run = GangRun(tmp_path, workers=1, reserve=0)
    run.create_ledger()

    async def refused_with_a_lease(attempt: int) -> tuple[int, str | None]:
        current = CurrentView(position=0, job_uid="5ac7f6f2")
        leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        lease_as(run, attempt)
        full = refused(Reason.STORAGE_FULL)
        await follow(leader, until=Action.END, attempt=attempt, ends=(full,))
        await follow(leader, until=Action.DONE)
        return await lead, current.report.message

    for attempt in (1, 2):
        code, message = asyncio.run(refused_with_a_lease(attempt))
        assert code == WorkerExit.HELD
        assert "go on with --resume" in str(message)
    status = run.ledger.read().ledger.status
    assert (status.charged, status.outcome) == (10, None)


def test_pod_whose_first_step_hung_leases_no_more_by_itself(tmp_path: Path, clock: Time) -> None:
    """Each look would cost a lease, and the reserve covers none."""
    run = GangRun(tmp_path, workers=1, reserve=0, stall_seconds=1, stays_after_outcome=True)
    run.create_ledger()
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        lease_as(run, 1)
        await follow(leader, until=Action.RUN, attempt=1)
        await clock.passes(leader, 5)
        await follow(leader, until=Action.END, attempt=1)
        await follow(leader, until=Action.END)
        async with asyncio.timeout(60):
            while current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.02)
        await clock.passes(leader, leading._REFUSED_SECONDS + 5)
        report = current.report
        assert (report.state, report.reason) == (WorkerState.WAITING, Reason.STALLED)
        assert "does not cover another lost lease" in str(report.message)
        leader.terminating = True
        leader.wake()
        return await lead

    assert asyncio.run(scene()) == WorkerExit.OK
    status = run.ledger.read().ledger.status
    assert (status.attempt, status.charged, status.outcome) == (1, 5, None)
    assert status.attempts[0].reason == "Stalled"


def test_what_stalls_after_a_step_of_each_attempt_does_not_spend_the_reserve(
    tmp_path: Path, clock: Time
) -> None:
    """Each attempt would spend a lease, do the same steps again and find the same."""
    run = GangRun(tmp_path, workers=1, reserve=15, stall_seconds=1, stays_after_outcome=True)
    run.create_ledger()
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)

    async def stall(attempt: int) -> None:
        await follow(leader, until=Action.RUN)
        lease_as(run, attempt)
        await follow(leader, until=Action.RUN, attempt=attempt)
        leader.heard_rank_zero(Progress(state=WorkerState.RUNNING, step=0))
        await clock.passes(leader, 0.5)
        leader.heard_rank_zero(Progress(state=WorkerState.RUNNING, step=1))
        await clock.passes(leader, 4.5)
        await follow(leader, until=Action.END, attempt=attempt)

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        for attempt in (1, 2, 3):
            await stall(attempt)
        await follow(leader, until=Action.END)
        async with asyncio.timeout(60):
            while current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.01)
        lead.cancel()

    asyncio.run(scene())
    status = run.ledger.read().ledger.status
    assert (status.charged, status.outcome) == (15, None)
    assert [record.reason for record in status.attempts] == ["Stalled"] * 3
    message = str(current.report.message)
    assert "3 attempts in a row have stalled, the last one without a new" in message


@pytest.mark.parametrize(("stall_seconds", "holds"), [(30, True), (31, False)])
def test_pod_that_comes_back_leases_no_more_by_itself_either(
    tmp_path: Path, stall_seconds: int, holds: bool
) -> None:
    """Evicted, say. That a person has acted is seen by another runPolicy.stallSeconds."""
    run = GangRun(tmp_path, workers=1, reserve=0, stall_seconds=30, stays_after_outcome=True)
    run.create_ledger()
    now = datetime.now(UTC)
    attempts.begin_attempt(run.ledger, now)
    lease_as(run, 1)
    stalled = End(kind=EndKind.CRASHED, rank=0, reason=Reason.STALLED, message="no first step")
    record_end(run.ledger, 1, stalled, run.config(0), now, order_generation=1)
    run.change_policy(run.policy.model_copy(update={"stall_seconds": stall_seconds}))
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        async with asyncio.timeout(60):
            if not holds:
                await follow(leader, until=Action.RUN)
            while holds and current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.01)
        lead.cancel()

    asyncio.run(scene())
    assert (current.report.reason == Reason.STALLED) == holds
    assert ("does not cover another lost lease" in str(current.report.message)) == holds
    assert run.ledger.read().ledger.status.attempt == (1 if holds else 2)


ECHO = End(kind=EndKind.CRASHED, rank=0, reason=Reason.RANK_FAILED, message="lost another rank")
KILLED = End(kind=EndKind.CRASHED, rank=1, reason=Reason.RANK_FAILED, signal=signal.SIGKILL)


async def begin(leader: Leader) -> None:
    """Two workers run attempt 1."""
    both = [follow(leader, until=Action.RUN, position=position) for position in (0, 1)]
    await asyncio.gather(*both)
    for position in (0, 1):
        await follow(leader, until=Action.RUN, position=position, attempt=1)


async def reason_of_the_end(run: GangRun) -> tuple[str | None, str | None, int | None]:
    async with asyncio.timeout(60):
        while (record := run.ledger.read().ledger.status.attempts[0]).end is None:
            await asyncio.sleep(0.02)
    return record.reason, record.message, record.signal


def test_worker_that_falls_silent_ends_the_attempt(tmp_path: Path, clock: Time) -> None:
    leader, run = a_leader(tmp_path, Ranks(deaf=0), workers=2)

    async def scene() -> tuple[str | None, str | None, int | None]:
        lead = asyncio.create_task(leader.lead())
        await begin(leader)
        await clock.passes(leader, 3)
        await follow(leader, until=Action.RUN, attempt=1)
        await clock.passes(leader, 4)
        end = await reason_of_the_end(run)
        lead.cancel()
        return end

    assert asyncio.run(scene()) == ("WorkerLost", "worker 1 stopped answering", None)


def test_crash_waits_for_the_one_that_it_may_echo(tmp_path: Path, clock: Time) -> None:
    """The supervisor of the rank that was killed may be the later one to say so."""
    leader, run = a_leader(tmp_path, Ranks(deaf=0), workers=2)

    async def scene() -> tuple[str | None, str | None, int | None]:
        lead = asyncio.create_task(leader.lead())
        await begin(leader)
        await follow(leader, until=Action.RUN, attempt=1, ends=(ECHO,))
        await clock.passes(leader, 4)
        await follow(leader, until=Action.END, position=1, attempt=1, ends=(KILLED,))
        await asyncio.gather(
            *(follow(leader, until=Action.WAIT, position=position) for position in (0, 1))
        )
        end = await reason_of_the_end(run)
        lead.cancel()
        return end

    assert asyncio.run(scene()) == ("RankFailed", "", signal.SIGKILL)


def test_worker_that_was_restarted_explains_the_crash_of_the_others(
    tmp_path: Path, clock: Time
) -> None:
    """At once: nobody is left who could tell how its own ranks ended."""
    leader, run = a_leader(tmp_path, Ranks(deaf=0), workers=2)

    async def scene() -> tuple[str | None, str | None, int | None]:
        lead = asyncio.create_task(leader.lead())
        await begin(leader)
        await follow(leader, until=Action.RUN, attempt=1, ends=(ECHO,))
        await follow(leader, until=Action.END, position=1, incarnation="b")
        await asyncio.gather(
            follow(leader, until=Action.WAIT),
            follow(leader, until=Action.WAIT, position=1, incarnation="b"),
        )
        end = await reason_of_the_end(run)
        lead.cancel()
        return end

    assert asyncio.run(scene()) == ("WorkerLost", "worker 1 was restarted", None)


def test_what_keeps_workers_from_being_known_is_reported_while_it_lasts(tmp_path: Path) -> None:
    """By the report, from which the operator has the condition."""
    leader, _ = a_leader(tmp_path, Ranks(deaf=0))
    trouble: list[tuple[Reason, str]] = [(Reason.GANG_UNPROVABLE, "bind the role")]
    leader._trouble = lambda: trouble[0] if trouble else None
    current = leader._current

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        async with asyncio.timeout(60):
            while current.report.state != WorkerState.WAITING:
                await asyncio.sleep(0.02)
            report = current.report
            assert (report.reason, report.message) == ("GangUnprovable", "bind the role")
            trouble.clear()
            await follow(leader, until=Action.RUN)
        report = current.report
        assert (report.state, report.reason, report.message) == (WorkerState.STARTING, None, None)
        lead.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("position", [1, -1])
def test_who_is_no_worker_of_the_run_changes_nothing(tmp_path: Path, position: int) -> None:
    leader, run = a_leader(tmp_path, Ranks(deaf=0))
    lie = End(kind=EndKind.FAILED, rank=0, reason=Reason.TASK_FAILED, message="a stranger's")

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        greeting = Hello(position=position, incarnation="x", ready=True, attempt=1, ends=(lie,))
        with pytest.raises(HelloDenied, match="the run has workers 0 to 0"):
            await leader.reception.hello(greeting, Speaker(position, ""))
        await asyncio.sleep(0)
        await follow(leader, until=Action.RUN, attempt=1)
        lead.cancel()

    asyncio.run(scene())
    assert run.ledger.read().ledger.status.outcome is None


def test_nobody_is_admitted_before_it_is_known_how_many_workers_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger says so, and may come late; a worker asks again."""
    monkeypatch.setattr(reception, "_ANSWER_SECONDS", 0.01)
    run = GangRun(tmp_path, workers=1)
    run.ledger.path.mkdir()
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)
    early = Hello(position=5, incarnation="x", ready=True)

    async def scene() -> None:
        lead = asyncio.create_task(leader.lead())
        with pytest.raises(HelloDenied, match="ledger has not been read") as refused:
            await leader.reception.hello(early, Speaker(5, ""))
        assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
        monkeypatch.setattr(reception, "_ANSWER_SECONDS", 60)
        run.create_ledger()
        await follow(leader, until=Action.RUN)
        monkeypatch.setattr(reception, "_ANSWER_SECONDS", 0.01)
        with pytest.raises(HelloDenied, match="the run has workers 0 to 0"):
            await leader.reception.hello(early, Speaker(5, ""))
        lead.cancel()

    asyncio.run(scene())


def test_a_worker_that_is_to_join_is_answered_by_the_order_that_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else hundreds of them would ask and be refused all the time, while the others train."""
    monkeypatch.setattr(reception, "_ANSWER_SECONDS", 60)
    leader, run = a_leader(tmp_path, Ranks(deaf=0))
    joining = Hello(position=1, incarnation="x", ready=True)

    async def scene() -> Directive:
        lead = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        waiting = asyncio.create_task(leader.reception.hello(joining, Speaker(1, "")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        order(run, OrderState.RUN, workers=2)
        stopped = an_end(EndKind.DRAINED, Reason.STOPPED)
        await follow(leader, until=Action.END, attempt=1, ends=(stopped,))
        directive = await waiting
        lead.cancel()
        return directive

    assert asyncio.run(scene()).action in {Action.END, Action.WAIT}


def test_workers_are_sent_home_also_where_no_ledger_was_ever_read(tmp_path: Path) -> None:
    """Else the coordinator would ask its own leader for ever."""
    run = GangRun(tmp_path, workers=1)
    run.ledger.path.mkdir()
    (run.ledger.path / "0000000001.json").write_text("{")
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    leader = Leader(run.config(0), run.ledger, current, structlog.get_logger(), Ranks(0).tell)

    async def scene() -> int:
        lead = asyncio.create_task(leader.lead())
        directive = await follow(leader, until=Action.DONE)
        assert directive.exit_code == WorkerExit.HELD
        return await lead

    assert asyncio.run(scene()) == WorkerExit.HELD


def test_worker_that_is_restarted_while_an_attempt_is_written_down_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new process is not ready, and starts no ranks: the others would wait for them."""
    leader, run = a_leader(tmp_path, Ranks(deaf=0), workers=2)
    begin_attempt = attempts.begin_attempt

    async def greet(position: int, incarnation: str, *, ready: bool = True) -> None:
        greeting = Hello(position=position, incarnation=incarnation, ready=ready)
        await leader.reception.hello(greeting, Speaker(position, ""))

    async def scene() -> tuple[str | None, str | None, int | None]:
        loop = asyncio.get_running_loop()

        def restarted_meanwhile(*arguments: Any, **options: Any) -> Any:
            begun = begin_attempt(*arguments, **options)
            again = greet(1, "b", ready=False)
            asyncio.run_coroutine_threadsafe(again, loop).result(60)
            return begun

        monkeypatch.setattr(attempts, "begin_attempt", restarted_meanwhile)
        lead = asyncio.create_task(leader.lead())
        await greet(0, "a")
        await greet(1, "a")
        async with asyncio.timeout(60):
            while not run.ledger.read().ledger.status.attempts:
                await asyncio.sleep(0.02)
        end = await reason_of_the_end(run)
        lead.cancel()
        return end

    assert asyncio.run(scene()) == ("WorkerLost", "worker 1 was restarted", None)
