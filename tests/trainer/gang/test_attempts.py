"""Attempts: numbers, ends, failure outcomes and the restart budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import (
    MAX_ATTEMPTS_KEPT,
    MAX_NUMBER,
    LedgerStatus,
    OutcomeState,
)
from dtjob_api.reasons import Reason
from dtjob_trainer.gang.attempts import (
    AttemptEnd,
    OrderChanged,
    begin_attempt,
    end_attempt,
    fail,
    record_drained,
)
from dtjob_trainer.gang.restarts import may_restart
from dtjob_trainer.ledger.backend import LedgerRejected, Superseded
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import START
from tests.support.ledgers.durability import Job

KILLED = AttemptEnd(Reason.RANK_FAILED, "killed", rank=1, signal=9)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "job")
    made.create()
    return made


@pytest.mark.rule(2)
def test_numbers_rise_and_an_attempt_that_nobody_saw_end_is_lost(job: Job) -> None:
    """Every formation of the group has its own number."""
    assert [job.begin(), job.begin()] == [1, 2]
    first, second = job.read().status.attempts
    assert (first.reason, first.end is None) == (Reason.WORKER_LOST, False)
    assert (second.attempt, second.end) == (2, None)


def test_end_is_recorded_once_and_stays(job: Job) -> None:
    attempt = job.begin()
    end_attempt(job.ledger, attempt, KILLED, START)
    end_attempt(job.ledger, attempt, AttemptEnd(Reason.STOPPED), START)
    [record] = job.read().status.attempts
    assert (record.reason, record.rank, record.signal) == (Reason.RANK_FAILED, 1, 9)
    job.begin()
    assert job.read().status.attempts[0] == record


@pytest.mark.rule(10)
def test_superseded_attempt_records_nothing(job: Job) -> None:
    """Every write carries its attempt."""
    attempt = job.begin()
    job.begin()
    for write in (
        lambda: end_attempt(job.ledger, attempt, KILLED, START),
        lambda: record_drained(job.ledger, attempt, 1),
    ):
        with pytest.raises(Superseded):
            write()


@pytest.mark.rule(10)
def test_failure_is_written_with_the_attempts_end_and_is_final(job: Job) -> None:
    attempt = job.begin()

    def write(message: str) -> None:
        fail(
            job.ledger,
            attempt,
            end=KILLED,
            reason=Reason.RESTARTS_EXHAUSTED,
            message=message,
            now=START,
        )

    write("x" * 5000)
    write("x" * 5000)  # the same again: its answer may have been lost
    status = job.read().status
    assert status.outcome is not None
    assert status.outcome.state is OutcomeState.FAILED
    assert status.outcome.reason is Reason.RESTARTS_EXHAUSTED
    assert len(status.outcome.message) == 1024
    assert status.attempts[0].reason == Reason.RANK_FAILED
    with pytest.raises(Superseded, match="the job has ended"):
        write("another")
    with pytest.raises(Superseded, match="a finished job is not run again"):
        job.begin()


def test_an_attempt_says_under_which_order_it_runs_and_how_large_it_is(job: Job) -> None:
    """By this the operator knows which pods are still needed: an order may be newer."""
    run = job.read().spec.run
    job.begin()
    [record] = job.read().status.attempts
    assert (record.generation, record.workers) == (run.generation, run.workers)


def test_no_number_is_taken_for_an_order_that_was_replaced_meanwhile(job: Job) -> None:
    """The record would say of the old gang that it is the new one, whose pods may go."""
    gathered = job.read().spec.run
    newest = job.ledger.read()
    replaced = gathered.model_copy(update={"generation": 2, "workers": 1})
    spec = newest.ledger.spec.model_copy(update={"run": replaced})
    assert isinstance(job.ledger, FileLedger)
    job.ledger.replace_spec(newest, spec)
    with pytest.raises(OrderChanged):
        begin_attempt(job.ledger, job.clock(), order=gathered)
    assert job.read().status.attempt == 0
    assert begin_attempt(job.ledger, job.clock(), order=replaced).ledger.status.attempt == 1


def begin(job: Job, max_restarts: int) -> LedgerStatus:
    """Begin an attempt where so many restarts are allowed."""
    versioned = job.ledger.read()
    policy = PolicyInForce(max_restarts=max_restarts)
    if versioned.ledger.spec.run_policy != policy:
        assert isinstance(job.ledger, FileLedger)
        spec = versioned.ledger.spec.model_copy(update={"run_policy": policy})
        job.ledger.replace_spec(versioned, spec)
    return begin_attempt(job.ledger, job.clock(), is_limited=True).ledger.status


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_attempts_that_nobody_saw_end_use_up_the_restarts(job: Job, max_restarts: int) -> None:
    """A coordinator that dies each time would spend a lease each time, whatever the limit."""
    for number in range(max_restarts + 1):
        assert begin(job, max_restarts).attempt == number + 1
    status = begin(job, max_restarts)
    assert status == job.read().status
    assert status.attempt == max_restarts + 1
    assert [record.reason for record in status.attempts] == [Reason.WORKER_LOST] * status.attempt
    assert status.outcome is not None
    assert status.outcome.reason is Reason.RESTARTS_EXHAUSTED
    assert f"more than {max_restarts} restarts" in status.outcome.message
    assert "it ended without a report" in status.outcome.message
    with pytest.raises(Superseded):
        begin(job, max_restarts)


def test_attempt_that_closed_its_lease_has_stopped_though_it_could_not_write_so(job: Job) -> None:
    """A pod that is deleted by force loses the right to write while it stops."""
    job.run(stop_after=1)
    status = begin(job, 0)
    assert (status.attempt, status.outcome) == (2, None)
    assert status.attempts[0].reason == Reason.STOPPED
    # This one closes nothing: what another attempt has closed says nothing of it.
    status = begin(job, 0)
    assert status.attempts[1].reason == Reason.WORKER_LOST
    assert status.outcome is not None
    assert status.outcome.reason is Reason.RESTARTS_EXHAUSTED


def test_attempt_whose_lease_is_open_was_lost(job: Job) -> None:
    job.run(stop_after=1)
    job.opened()
    assert begin(job, 1).attempts[1].reason == Reason.WORKER_LOST


def test_failure_whose_outcome_was_not_written_any_more_is_the_last(job: Job) -> None:
    """The supervisor died between the two writes."""
    end_attempt(job.ledger, begin(job, 0).attempt, KILLED, START)
    outcome = begin(job, 0).outcome
    assert outcome is not None
    assert outcome.message.endswith("the last time: killed")


def test_orderly_stops_use_up_no_restart(job: Job) -> None:
    for reason in (Reason.STOPPED, Reason.STORAGE_FULL):
        end_attempt(job.ledger, begin(job, 0).attempt, AttemptEnd(reason), START)
    assert begin(job, 0).attempt == 3


def test_orderly_stop_after_failures_is_followed_whatever_the_limit_is_now(job: Job) -> None:
    end_attempt(job.ledger, begin(job, 5).attempt, KILLED, START)
    end_attempt(job.ledger, begin(job, 5).attempt, AttemptEnd(Reason.STOPPED), START)
    assert begin(job, 0).attempt == 3


def test_end_of_the_last_attempt_is_recorded_after_the_outcome(job: Job) -> None:
    job.run()
    end_attempt(job.ledger, 1, AttemptEnd(Reason.COMPLETED), START)
    assert job.read().status.attempts[0].reason == Reason.COMPLETED


def test_drain_is_answered_once(job: Job) -> None:
    attempt = job.begin()
    record_drained(job.ledger, attempt, 1)
    version = job.ledger.read().version
    record_drained(job.ledger, attempt, 1)
    assert job.ledger.read().version == version
    assert job.read().status.drained == 1


def test_the_last_twenty_attempts_are_kept(job: Job) -> None:
    for _ in range(23):
        job.begin()
    numbers = [record.attempt for record in job.read().status.attempts]
    assert numbers == list(range(4, 24))


def test_stops_leave_the_list_before_failures(job: Job) -> None:
    """Else resizes would hide how often a job fails, and `maxRestarts` would never end it."""
    for number in range(1, 46):
        attempt = job.begin()
        end = KILLED if number % 3 == 0 else AttemptEnd(Reason.STOPPED)
        end_attempt(job.ledger, attempt, end, START)
    records = job.read().status.attempts
    assert len(records) == MAX_ATTEMPTS_KEPT
    failures = [r.attempt for r in records if r.reason == Reason.RANK_FAILED]
    assert failures == list(range(3, 46, 3))
    assert [r.attempt for r in records if r.attempt not in failures] == [38, 40, 41, 43, 44]


def test_failures_among_stops_use_up_the_restarts(job: Job) -> None:
    for number in range(60):
        if begin(job, 4).outcome is not None:
            break
        end = KILLED if number % 10 == 0 else AttemptEnd(Reason.STOPPED)
        end_attempt(job.ledger, number + 1, end, START)
    assert not may_restart(job.read().status.attempts, START, 4)


def test_after_the_last_number_there_is_no_attempt(job: Job) -> None:
    """In words, and not in those of the schema."""
    versioned = job.ledger.read()
    last = {"attempt": MAX_NUMBER, "restored": MAX_NUMBER}
    job.ledger.replace_status(versioned, versioned.ledger.status.model_copy(update=last))
    with pytest.raises(LedgerRejected, match=r"the last number there is.*create a new job"):
        job.begin()
