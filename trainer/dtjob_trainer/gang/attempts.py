"""Attempts: who may write the ledger now, how earlier ones ended, when there are too many.

The supervisor of the coordinator writes these (a dead rank can't). Every formation of the process
group takes a new number by compare-and-swap (rule 2); that number is the fence for every later
write (rule 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dtjob_api.job.run_policy import FailureAction, FailurePolicy
from dtjob_api.ledger.attempt_rules import is_failure, leaves
from dtjob_api.ledger.privacy_ledger import (
    MAX_NUMBER,
    AttemptRecord,
    Hold,
    LedgerStatus,
    Order,
    Outcome,
    OutcomeState,
    PrivacyLedger,
)
from dtjob_api.reasons import Reason
from dtjob_trainer.gang.restarts import exhausted, may_restart, ruling
from dtjob_trainer.ledger.backend import (
    AnswerLost,
    Conflict,
    Ledger,
    LedgerRejected,
    Superseded,
    Versioned,
    clipped,
    update,
)
from dtjob_trainer.ledger.lease import has_closed


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended, without private data (rule 20).

    Attributes
    ----------
    rank
        The rank that failed first, if one did; `exit_code` or `signal` are its.
    ignored
        Whether a rule has it count against nothing.
    hold
        Under what no other attempt follows by itself.
    """

    reason: Reason
    message: str = ""
    rank: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    ignored: bool = False
    hold: Hold | None = None


class OrderChanged(Exception):
    """Another order was given meanwhile, and comes first."""


def begin_attempt(
    ledger: Ledger, now: datetime, *, is_limited: bool = False, order: Order | None = None
) -> Versioned:
    """Rule 2: take the next attempt number; it is `.ledger.status.attempt` of what returns.

    An attempt before it whose end nobody saw is recorded as `WorkerLost`, or as `Stopped` where it
    has closed its lease (rule 10): it was told to stop, and nothing of it is lost. After a lost
    answer another number is taken: one's own number can't be told from another supervisor's, and
    numbers cost nothing.

    Parameters
    ----------
    is_limited
        Where the attempt before failed as one too many, or as a rule ends the job, no number is
        taken: what returns has the outcome. Whoever saw that attempt end has written so already,
        but a supervisor that died with it has not, and each death would cost a lease.
    order
        What the workers have gathered for; by default whatever the ledger orders.

    Raises
    ------
    Superseded
        The job has its outcome: there is nothing left to attempt.
    OrderChanged
        The ledger's is another than `order`: no number is taken.
    LedgerUnreadable, LedgerRejected
    """
    while True:
        versioned = ledger.read()
        status = versioned.ledger.status
        if status.outcome is not None:
            raise Superseded(
                f"the job has ended ({status.outcome.state}, {status.outcome.reason}); "
                "a finished job is not run again"
            )
        ordered = versioned.ledger.spec.run
        if order is not None and order != ordered:
            raise OrderChanged
        if status.attempt >= MAX_NUMBER:
            raise LedgerRejected(
                f"status.attempt of the ledger is {status.attempt}, the last number there is: no "
                "attempt can follow. Nothing was changed; create a new job, which spends anew"
            )
        attempt = status.attempt + 1
        policy = versioned.ledger.spec.run_policy
        earlier = [
            record
            if record.end is not None
            else _ended(record, _ruled(_unseen_end(record, status), policy), now)
            for record in status.attempts
        ]
        leaving = leaves(status.attempts)
        kept = [r for r in earlier if leaving is None or r.attempt != leaving.attempt]
        begins = AttemptRecord(
            attempt=attempt, generation=ordered.generation, workers=ordered.workers, start=now
        )
        records = [*kept, begins]
        changed = {"attempt": attempt, "attempts": records}
        if is_limited and (why := _last(earlier, now, policy)) is not None:
            changed = {"attempts": earlier, "outcome": _failure(*why, now)}
        try:
            return ledger.replace_status(versioned, status.model_copy(update=changed))
        except (Conflict, AnswerLost):
            continue


def end_attempt(ledger: Ledger, attempt: int, end: AttemptEnd, now: datetime) -> Versioned:
    """Record how `attempt` ended, also after the job's outcome; what is recorded stays.

    Raises
    ------
    Superseded, LedgerUnreadable, LedgerRejected
    """

    def change(newest: PrivacyLedger) -> LedgerStatus | None:
        changed = with_end(newest.status, attempt, end, now)
        return None if changed == newest.status else changed

    return update(ledger, attempt, change, after_outcome=True)


def fail(
    ledger: Ledger, attempt: int, *, end: AttemptEnd, reason: Reason, message: str, now: datetime
) -> Versioned:
    """Write the job's failure, and how its last attempt ended, in one write.

    Parameters
    ----------
    end
        Of the attempt.
    reason, message
        Of the job; they differ where the attempt was one too many (`RestartsExhausted`).

    Raises
    ------
    Superseded
        A newer attempt has begun, or the job has an outcome: that one stands.
    LedgerUnreadable, LedgerRejected
    """
    outcome = _failure(reason, message, now)

    def change(newest: PrivacyLedger) -> LedgerStatus | None:
        if newest.status.outcome == outcome:
            return None
        ended = with_end(newest.status, attempt, end, now)
        return ended.model_copy(update={"outcome": outcome})

    return update(ledger, attempt, change)


def record_drained(ledger: Ledger, attempt: int, order_generation: int) -> Versioned:
    """Record that order `order_generation`, a drain or a stop, is done: no gang runs any more.

    Raises
    ------
    Superseded, LedgerUnreadable, LedgerRejected
    """

    def change(newest: PrivacyLedger) -> LedgerStatus | None:
        drained = newest.status.drained
        if drained is not None and drained >= order_generation:
            return None
        return newest.status.model_copy(update={"drained": order_generation})

    return update(ledger, attempt, change)


def with_end(status: LedgerStatus, attempt: int, end: AttemptEnd, now: datetime) -> LedgerStatus:
    """The status with the end of `attempt` in it; what is recorded stays."""
    records = [
        _ended(record, end, now) if record.attempt == attempt and record.end is None else record
        for record in status.attempts
    ]
    return status.model_copy(update={"attempts": records})


def _ruled(end: AttemptEnd, policy: FailurePolicy) -> AttemptEnd:
    """An end that nobody saw, with what a rule says of it."""
    found = ruling(policy.rules, end.reason, end.exit_code, end.signal)
    if found is None or found.action is not FailureAction.IGNORE:
        return end
    return replace(end, ignored=True, message=f"{end.message}; {found.words}")


def _last(
    earlier: Sequence[AttemptRecord], now: datetime, policy: FailurePolicy
) -> tuple[Reason, str] | None:
    """Why no attempt follows those before; None where one may.

    Not after an orderly end, whatever came before it: that restart was asked for.
    """
    if not earlier or not is_failure(earlier[-1]):
        return None
    last = earlier[-1]
    found = ruling(policy.rules, last.reason or "", last.exit_code, last.signal)
    if found is not None and found.action is FailureAction.FAIL:
        return Reason.FAILURE_RULE, f"{found.words}: {last.message or ''}"
    if not may_restart(earlier, now, policy.max_restarts):
        return Reason.RESTARTS_EXHAUSTED, exhausted(policy, last.message or "")
    return None


def _unseen_end(record: AttemptRecord, status: LedgerStatus) -> AttemptEnd:
    if has_closed(status, record.attempt):
        # Only an attempt that is asked to stop closes its lease. Its supervisor could not write the
        # rest: a pod that is deleted by force has no token any more.
        return AttemptEnd(Reason.STOPPED, "it drained and could not record so itself")
    return AttemptEnd(Reason.WORKER_LOST, "it ended without a report")


def _failure(reason: Reason, message: str, now: datetime) -> Outcome:
    return Outcome(state=OutcomeState.FAILED, reason=reason, message=clipped(message), time=now)


def _ended(record: AttemptRecord, end: AttemptEnd, now: datetime) -> AttemptRecord:
    return record.model_copy(
        update={
            "end": now,
            "rank": end.rank,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "reason": str(end.reason),
            "message": clipped(end.message),
            "ignored": end.ignored or None,
            "hold": end.hold,
        }
    )
