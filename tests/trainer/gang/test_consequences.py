"""What is written down of an attempt's end, and what its job does then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.job.run_policy import FailureAction, FailureCause, FailureRule
from dtjob_api.ledger.privacy_ledger import AttemptRecord, Hold, Outcome, OutcomeState
from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_api.wire.gang import End, EndKind
from dtjob_trainer.gang import attempts, consequences
from dtjob_trainer.gang.consequences import Consequence, Follows, held, record_end
from dtjob_trainer.ledger.lease import next_lease, with_lease
from dtjob_trainer.ledger.recovery import TrainingHeld
from tests.support.builders import PROVENANCE, tiny_plan
from tests.support.gangs.gang_run import GangRun
from tests.support.gangs.leading import lease_as, succeeded, write_status
from tests.support.ledgers.durability import Job, state_at

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STALLED = End(kind=EndKind.CRASHED, rank=0, reason=Reason.STALLED, message="no first step")
KILLED = End(kind=EndKind.CRASHED, rank=1, reason=Reason.RANK_FAILED, message="killed", signal=9)
REPORTED_DONE = End(kind=EndKind.SUCCEEDED, rank=0, reason=Reason.COMPLETED)


@pytest.fixture
def run(tmp_path: Path) -> GangRun:
    """Its reserve covers no lease that is lost."""
    return a_run(tmp_path, reserve=4)


def a_run(folder: Path, reserve: int, steps: int = 60) -> GangRun:
    """A job of leases of 5 draws; attempt 1 has one."""
    run = GangRun(
        folder, 1, steps=steps, reserve=reserve, stall_seconds=30, stays_after_outcome=True
    )
    run.create_ledger()
    attempts.begin_attempt(run.ledger, NOW)
    lease_as(run, 1)
    return run


def closed(run: GangRun, end: End) -> Consequence:
    return record_end(run.ledger, 1, end, run.config(0), NOW, order_generation=1)


def record(run: GangRun) -> AttemptRecord:
    return run.ledger.read().ledger.status.attempts[0]


@pytest.mark.parametrize("state", OutcomeState)
def test_an_attempt_ends_for_the_reason_of_the_outcome_that_it_wrote(
    run: GangRun, state: OutcomeState
) -> None:
    """A rank whose loop has ended reports no other reason than that."""
    why = Reason.PRIVACY_BUDGET_EXHAUSTED
    write_status(run, outcome=Outcome(state=state, reason=why, time=NOW))
    assert closed(run, REPORTED_DONE).follows is Follows.LOOK
    assert (record(run).reason, record(run).end) == ("PrivacyBudgetExhausted", NOW)


def test_an_attempt_that_has_done_all_steps_is_completed(run: GangRun) -> None:
    write_status(run, outcome=succeeded())
    closed(run, REPORTED_DONE)
    assert record(run).reason == "Completed"


@pytest.mark.parametrize("kind", [EndKind.FAILED, EndKind.CRASHED, EndKind.HELD])
def test_no_end_is_held_against_an_outcome(run: GangRun, kind: EndKind) -> None:
    write_status(run, outcome=succeeded())
    assert closed(run, KILLED.model_copy(update={"kind": kind})).follows is Follows.LOOK
    assert record(run).reason == "RankFailed"


def test_what_stalls_without_a_checkpoint_is_held_where_the_reserve_covers_no_other_lease(
    run: GangRun,
) -> None:
    """In one write: nobody who is killed in between leaves the job without its hold."""
    found = closed(run, STALLED)
    assert found.follows is Follows.HELD_FOR_ORDER
    assert record(run).hold == Hold(generation=1, stall_seconds=30)
    ledger = run.ledger.read().ledger
    assert held(ledger) == found
    assert "the reserve of 4 draws does not cover another lost lease" in found.message


def test_a_hold_is_for_the_order_that_its_attempt_ran_under(run: GangRun) -> None:
    """One that was given before the end could be written is a person's word on it."""
    newest = run.ledger.read()
    order = newest.ledger.spec.run.model_copy(update={"generation": 2})
    run.ledger.replace_spec(newest, newest.ledger.spec.model_copy(update={"run": order}))
    assert closed(run, STALLED).follows is Follows.HELD_FOR_ORDER
    assert record(run).hold == Hold(generation=1, stall_seconds=30)
    assert held(run.ledger.read().ledger) is None


@pytest.mark.parametrize(
    ("end", "step"), [(STALLED, 5), (KILLED, 0)], ids=["stalled after a checkpoint", "killed"]
)
def test_another_attempt_follows_other_deaths(run: GangRun, end: End, step: int) -> None:
    checkpoint = run.ledger.read().ledger.status.checkpoint
    assert checkpoint is not None
    write_status(run, checkpoint=checkpoint.model_copy(update={"step": step, "charged": step}))
    assert closed(run, end).follows is Follows.RESTART
    assert held(run.ledger.read().ledger) is None


def refused(reason: Reason) -> End:
    return End(kind=EndKind.HELD, rank=0, reason=reason, message="no")


@pytest.mark.rule(10)
@pytest.mark.parametrize(
    "reason", [Reason.STORAGE_FULL, Reason.STORAGE_UNUSABLE, Reason.LEDGER_UNREADABLE]
)
def test_a_refusal_that_cost_a_lease_for_no_step_is_held(run: GangRun, reason: Reason) -> None:
    """Looked at again each minute, it would take a lease each time until all are spent."""
    found = closed(run, refused(reason))
    assert (found.follows, found.reason) == (Follows.HELD_FOR_ORDER, reason)
    assert "no step of it was kept" in found.message
    assert held(run.ledger.read().ledger) == found


def keep_a_step(run: GangRun) -> None:
    """Attempt 1 has published its first lease, and lost its second one."""
    newest = run.ledger.read().ledger
    first = newest.status.checkpoint
    assert first is not None
    lease = next_lease(newest, 1, next_draw=5, step=5)
    assert lease is not None
    record = first.model_copy(update={"step": 5, "charged": 5})
    leased = with_lease(newest, lease, record, PROVENANCE)
    write_status(run, **dict(leased))


@pytest.mark.parametrize(("reserve", "follows"), [(9, Follows.HELD_FOR_ORDER), (10, Follows.HELD)])
@pytest.mark.parametrize("reason", sorted(TRAINING_HELD))
def test_a_refusal_after_a_step_that_was_kept_is_looked_at_again_as_the_reserve_allows(
    tmp_path: Path, reason: Reason, reserve: int, follows: Follows
) -> None:
    """What lost its room has it proved before the next lease; but it may lose that one too."""
    run = a_run(tmp_path, reserve=reserve)
    keep_a_step(run)
    found = closed(run, refused(reason))
    assert found.follows is follows
    expected = found if follows is Follows.HELD_FOR_ORDER else None
    assert held(run.ledger.read().ledger) == expected


@pytest.mark.parametrize("reserve", [4, 100])
def test_a_refusal_that_gave_its_lease_back_is_looked_at_again(
    tmp_path: Path, reserve: int
) -> None:
    """It was stopped in order, and what it did after that failed."""
    run = a_run(tmp_path, reserve=reserve)
    lease = run.ledger.read().ledger.status.lease
    assert lease is not None
    write_status(run, lease=lease.model_copy(update={"closed_at": 0}))
    assert closed(run, refused(Reason.STORAGE_FULL)).follows is Follows.HELD


@pytest.mark.parametrize("step", [5, 0], ids=["all steps are done", "all draws are charged"])
def test_a_refusal_where_no_other_attempt_would_lease_is_looked_at_again(
    tmp_path: Path, step: int
) -> None:
    """Nothing is risked: the next one has an outcome to write."""
    run = a_run(tmp_path, reserve=0, steps=5)
    made = run.ledger.read().ledger.status.checkpoint
    assert made is not None
    write_status(run, checkpoint=made.model_copy(update={"step": step, "charged": step}))
    assert closed(run, refused(Reason.STORAGE_FULL)).follows is Follows.HELD


def test_a_job_that_failed_where_its_volume_was_away_is_held_as_if_refused(
    run: GangRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would take a lease to fail again, each time that the volume is away then."""
    away = TrainingHeld(Reason.STORAGE_UNUSABLE, "the volume is away")
    monkeypatch.setattr(consequences, "unrecorded_draws", lambda *_: away)
    failed = KILLED.model_copy(update={"kind": EndKind.FAILED, "reason": Reason.TASK_FAILED})
    found = closed(run, failed)
    assert (found.follows, found.reason) == (Follows.HELD_FOR_ORDER, Reason.STORAGE_UNUSABLE)
    assert held(run.ledger.read().ledger) == found


def test_however_long_a_message_is_the_ledger_says_how_a_held_job_goes_on(run: GangRun) -> None:
    closed(run, refused(Reason.STORAGE_FULL).model_copy(update={"message": "no room " * 500}))
    assert str(record(run).message).endswith("by spec.suspend)")


def test_a_ledger_that_was_raised_ends_the_hold(run: GangRun) -> None:
    """An administrator has acted. One that was raised before the attempt says nothing of it."""
    closed(run, STALLED)
    write_status(run, restored=1)
    assert held(run.ledger.read().ledger) is None
    attempts.begin_attempt(run.ledger, NOW)
    lease_as(run, 2)
    assert (
        record_end(run.ledger, 2, STALLED, run.config(0), NOW, order_generation=1).follows
        is Follows.HELD_FOR_ORDER
    )
    assert held(run.ledger.read().ledger) is not None


@pytest.mark.rule(12)
@pytest.mark.parametrize("checkpoints", [1, 2])
def test_refusals_that_cost_a_lease_each_take_no_step_from_the_job(
    tmp_path: Path, checkpoints: int
) -> None:
    """A pod that looks again by itself keeps some steps each time, and loses its last lease."""
    job = Job(tmp_path / "job", tiny_plan(steps=20, lease_steps=2, reserve=6))
    job.create()
    config = GangRun(tmp_path, workers=1, max_restarts=0, stays_after_outcome=True).config(0)
    found, full = None, refused(Reason.STORAGE_FULL)
    while found is None or found.follows is Follows.HELD:
        leased, step = job.opened()
        kept = 0
        while True:
            if job.draw(leased) is not None:
                step += 1
            elif kept < checkpoints:
                leased.publish(step, state_at(step))
                kept += 1
            else:
                break
        found = record_end(
            job.ledger, job.read().status.attempt, full, config, NOW, order_generation=1
        )
    status = job.check().status
    assert (found.follows, found.reason, status.outcome) == (
        Follows.HELD_FOR_ORDER,
        Reason.STORAGE_FULL,
        None,
    )
    assert held(job.read()) == found
    assert "the reserve of 6 draws does not cover another lost lease" in found.message
    assert status.checkpoint is not None
    assert status.charged - status.checkpoint.step == 6
    job.run()  # as a person asked: no step has been lost
    outcome = job.check().status.outcome
    assert outcome is not None
    assert outcome.reason is Reason.COMPLETED


def test_a_refusal_before_a_lease_is_looked_at_again(run: GangRun) -> None:
    attempts.begin_attempt(run.ledger, NOW)
    end = refused(Reason.STORAGE_FULL)
    found = record_end(run.ledger, 2, end, run.config(0), now=NOW, order_generation=1)
    assert found.follows is Follows.HELD


def test_another_time_for_a_step_or_another_order_ends_the_hold(run: GangRun) -> None:
    closed(run, STALLED)
    ledger = run.ledger.read().ledger
    assert held(ledger) is not None
    policy = ledger.spec.run_policy.model_copy(update={"stall_seconds": 31})
    order = ledger.spec.run.model_copy(update={"generation": 2})
    for change in ({"run_policy": policy}, {"run": order}):
        spec = ledger.spec.model_copy(update=change)
        assert held(ledger.model_copy(update={"spec": spec})) is None


def test_a_hold_is_over_with_the_next_attempt(run: GangRun) -> None:
    closed(run, STALLED)
    attempts.begin_attempt(run.ledger, NOW)
    assert held(run.ledger.read().ledger) is None


def killed(run: GangRun, number: int) -> Consequence:
    """Attempt `number` ends by SIGKILL in its midst."""
    end = End(kind=EndKind.CRASHED, rank=1, reason=Reason.RANK_FAILED, message="gone", signal=9)
    return record_end(run.ledger, number, end, run.config(0), now=NOW, order_generation=1)


SIGKILL = [9]


@pytest.mark.parametrize(
    ("action", "follows", "outcome"),
    [
        ("Fail", Follows.LOOK, Reason.FAILURE_RULE),
        ("Ignore", Follows.RESTART, None),
        ("RestartGang", Follows.LOOK, Reason.RESTARTS_EXHAUSTED),
    ],
)
def test_the_first_rule_that_fits_decides(
    tmp_path: Path, action: str, follows: Follows, outcome: Reason | None
) -> None:
    rules = (
        FailureRule(exit_codes=[3], action=FailureAction.FAIL),
        FailureRule(signals=SIGKILL, action=FailureAction(action)),
        FailureRule(signals=SIGKILL, action=FailureAction.FAIL),
    )
    run = GangRun(tmp_path, workers=1, max_restarts=0, rules=rules)
    run.create_ledger()
    attempts.begin_attempt(run.ledger, NOW)
    assert killed(run, 1).follows is follows
    status = run.ledger.read().ledger.status
    assert (status.outcome.reason if status.outcome else None) == outcome
    words = f"spec.runPolicy.rules[1] (signal 9: {action})"
    found = status.outcome.message if outcome is Reason.FAILURE_RULE and status.outcome else ""
    assert (words in found + str(record(run).message)) == (action != "RestartGang")
    assert record(run).ignored is (True if action == "Ignore" else None)


def test_what_a_rule_ignores_uses_up_no_restart(tmp_path: Path) -> None:
    rules = (FailureRule(signals=SIGKILL, action=FailureAction.IGNORE),)
    run = GangRun(tmp_path, workers=1, max_restarts=0, rules=rules)
    run.create_ledger()
    for number in range(1, 30):
        begun = attempts.begin_attempt(run.ledger, NOW, is_limited=True)
        assert begun.ledger.status.attempt == number
        assert killed(run, number).follows is Follows.RESTART
    assert run.ledger.read().ledger.status.outcome is None


@pytest.mark.parametrize(("action", "outcome"), [("Fail", "FailureRule"), ("Ignore", None)])
def test_a_rule_holds_for_an_end_that_nobody_saw(
    tmp_path: Path, action: str, outcome: str | None
) -> None:
    rules = (FailureRule(causes=[FailureCause.WORKER_LOST], action=FailureAction(action)),)
    run = GangRun(tmp_path, workers=1, max_restarts=0, rules=rules)
    run.create_ledger()
    attempts.begin_attempt(run.ledger, NOW, is_limited=True)
    status = attempts.begin_attempt(run.ledger, NOW, is_limited=True).ledger.status
    assert (status.outcome.reason if status.outcome else None) == outcome
    assert status.attempt == (1 if outcome else 2)
    text = status.outcome.message if status.outcome else status.attempts[0].message
    assert f"spec.runPolicy.rules[0] (WorkerLost: {action})" in str(text)


def test_a_policy_that_was_changed_counts_from_the_next_failure_on(tmp_path: Path) -> None:
    run = GangRun(tmp_path, workers=1, max_restarts=0)
    run.create_ledger()
    attempts.begin_attempt(run.ledger, NOW)
    run.change_policy(run.policy.model_copy(update={"max_restarts": 1}))
    assert killed(run, 1).follows is Follows.RESTART


def test_an_attempt_too_many_ends_the_job_with_its_record_in_one_write(tmp_path: Path) -> None:
    run = GangRun(tmp_path, workers=1, reserve=4, max_restarts=0, stays_after_outcome=True)
    run.create_ledger()
    attempts.begin_attempt(run.ledger, NOW)
    lease_as(run, 1)
    before = int(run.ledger.read().version)
    assert closed(run, STALLED).follows is Follows.LOOK
    newest = run.ledger.read()
    assert int(newest.version) == before + 1
    outcome = newest.ledger.status.outcome
    assert outcome is not None
    assert outcome.reason is Reason.RESTARTS_EXHAUSTED
    assert outcome.message.endswith("the last time: no first step")
    assert (record(run).reason, record(run).hold) == ("Stalled", None)


def test_a_newer_attempt_keeps_the_ledger(run: GangRun) -> None:
    attempts.begin_attempt(run.ledger, NOW)
    found = closed(run, KILLED)
    assert (found.follows, found.reason) == (Follows.SUPERSEDED, Reason.SUPERSEDED)
    assert record(run).reason == "WorkerLost"


@pytest.fixture
def late_outcome(run: GangRun, monkeypatch: pytest.MonkeyPatch) -> GangRun:
    """A coordinator's last write comes while its end is being judged."""
    fail = attempts.fail

    def preceded(*arguments: Any, **more: Any) -> Any:
        write_status(run, outcome=succeeded())
        return fail(*arguments, **more)

    monkeypatch.setattr(attempts, "fail", preceded)
    return run


def test_an_outcome_that_comes_at_the_last_moment_stands(late_outcome: GangRun) -> None:
    failed = KILLED.model_copy(update={"kind": EndKind.FAILED, "reason": Reason.TASK_FAILED})
    assert closed(late_outcome, failed).follows is Follows.LOOK
    outcome = late_outcome.ledger.read().ledger.status.outcome
    assert outcome is not None
    assert outcome.state is OutcomeState.SUCCEEDED
