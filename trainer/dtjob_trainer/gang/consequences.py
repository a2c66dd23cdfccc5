"""Closes an attempt: writes how it ended into the ledger, and returns what follows from it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from dtjob_api.job.run_policy import FailureAction, FailurePolicy
from dtjob_api.ledger.privacy_ledger import MAX_MESSAGE_LENGTH, Hold, LedgerStatus, PrivacyLedger
from dtjob_api.reasons import Reason, known
from dtjob_api.wire.gang import End, EndKind
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.gang import attempts, verdicts
from dtjob_trainer.gang.patience import needs_a_person
from dtjob_trainer.gang.restarts import exhausted, may_restart, pause, ruling
from dtjob_trainer.ledger import volume
from dtjob_trainer.ledger.backend import Ledger, Superseded, clipped
from dtjob_trainer.ledger.unrecorded import unrecorded_draws


class Follows(StrEnum):
    """What follows the end of an attempt."""

    LOOK = "Look"  # what the ledger asks for now: the outcome's end, rest, another attempt
    RESTART = "Restart"  # another attempt after a failure
    HELD = "Held"  # nothing until a person has put something right; the pod looks again by itself
    HELD_FOR_ORDER = "HeldForOrder"  # until a person orders it: to look again would spend a lease
    SUPERSEDED = "Superseded"  # the ledger is another's


@dataclass(frozen=True)
class Consequence:
    """What follows, and why."""

    follows: Follows
    reason: Reason
    message: str
    pause: float = 0.0
    """Seconds before the attempt that follows, if one does."""


def record_end(
    ledger: Ledger,
    attempt: int,
    end: End,
    config: WorkerConfig,
    now: datetime,
    order_generation: int,
) -> Consequence:
    """Write the record of `attempt`, with the job's outcome where it is final.

    Parameters
    ----------
    end
        As the gang saw it, after all ranks of the attempt have ended.
    order_generation
        The order that the attempt ran under. By now there may be another, which no hold is for.

    Raises
    ------
    LedgerUnreadable, LedgerRejected
    """
    try:
        if end.kind is EndKind.SUPERSEDED:
            raise Superseded(end.message)
        newest = ledger.read().ledger
        hold = _hold(order_generation, newest.spec.run_policy)
        recorder = _Recorder(ledger, newest, attempt, config, now, hold)
        return recorder.write(_as_its_job_takes_it(end, newest.status, attempt))
    except Superseded as error:
        status = ledger.read().ledger.status
        if status.outcome is not None and status.attempt == attempt:
            # Our coordinator wrote it and died before it could report it, a moment ago.
            return Consequence(Follows.LOOK, end.reason, end.message)
        return Consequence(Follows.SUPERSEDED, Reason.SUPERSEDED, str(error))


def held(ledger: PrivacyLedger) -> Consequence | None:
    """Why no attempt may begin by itself; None where one may.

    A person lets the job go on by another `runPolicy.stallSeconds`, by a new order, or by raising
    a ledger that was behind its volume.
    """
    last = ledger.status.attempts[-1] if ledger.status.attempts else None
    if last is None or last.hold != _hold(ledger.spec.run.generation, ledger.spec.run_policy):
        return None
    if (ledger.status.restored or 0) >= last.attempt:
        return None
    # A Hold is set with reasons of this version's alone, or of one that had fewer.
    return Consequence(
        Follows.HELD_FOR_ORDER, known(last.reason) or Reason.STALLED, last.message or ""
    )


def _hold(order_generation: int, policy: FailurePolicy) -> Hold:
    return Hold(generation=order_generation, stall_seconds=policy.stall_seconds)


def _as_its_job_takes_it(end: End, status: LedgerStatus, attempt: int) -> End:
    if end.kind is EndKind.SUCCEEDED and status.outcome is not None:
        # A rank reports that its loop has ended, and not with which outcome.
        return end.model_copy(update={"reason": status.outcome.reason})
    return verdicts.weigh(end, status, attempt)


@dataclass(frozen=True)
class _Recorder:
    """An attempt that is over, and what its record is written from.

    Attributes
    ----------
    newest
        The ledger as it was read after the end.
    hold
        Under what no other attempt follows, where a person has to do something first.
    """

    ledger: Ledger
    newest: PrivacyLedger
    attempt: int
    config: WorkerConfig
    now: datetime
    hold: Hold

    def write(self, end: End) -> Consequence:
        """Write how the attempt ended; what follows."""
        record = attempts.AttemptEnd(
            reason=end.reason,
            message=end.message,
            rank=end.rank,
            exit_code=end.exit_code,
            signal=end.signal,
        )
        follows, why = Follows.LOOK, None
        if self.newest.status.outcome is not None:
            pass  # our coordinator wrote it, and may have died before it could report it
        elif end.kind is EndKind.FAILED:
            return self._fail(record, record.reason, record.message)
        elif end.kind is EndKind.HELD:
            follows, why = Follows.HELD, verdicts.risks_a_lease(self.newest, self.attempt)
        elif end.kind is EndKind.CRASHED:
            return self._crash(record)
        return self._end(record, follows, why)

    def _crash(self, record: attempts.AttemptEnd) -> Consequence:
        """Write what follows by `spec.runPolicy` from ranks that died or lost one another."""
        policy, status = self.newest.spec.run_policy, self.newest.status
        found = ruling(policy.rules, record.reason, record.exit_code, record.signal)
        if found is not None and found.action is FailureAction.FAIL:
            return self._fail(record, Reason.FAILURE_RULE, f"{found.words}: {record.message}")
        if found is not None and found.action is FailureAction.IGNORE:
            record = replace(record, ignored=True, message=f"{record.message}; {found.words}")
        ended = attempts.with_end(status, self.attempt, record, self.now)
        if not may_restart(ended.attempts, self.now, policy.max_restarts):
            return self._fail(record, Reason.RESTARTS_EXHAUSTED, exhausted(policy, record.message))
        why = None
        if record.reason is Reason.STALLED:
            why = needs_a_person(self.newest.model_copy(update={"status": ended}), self.attempt)
        seconds = pause(ended.attempts, self.now, policy.backoff, random.random())  # noqa: S311
        return replace(self._end(record, Follows.RESTART, why), pause=seconds)

    def _end(self, record: attempts.AttemptEnd, follows: Follows, why: str | None) -> Consequence:
        """Write the record; under the hold, where there is a `why`."""
        if why is not None:
            follows = Follows.HELD_FOR_ORDER
            # However long the message is: whoever reads it in the ledger must learn how to go on.
            message = f"{clipped(record.message, MAX_MESSAGE_LENGTH - len(why) - 2)}; {why}"
            record = replace(record, message=message, hold=self.hold)
        attempts.end_attempt(self.ledger, self.attempt, record, self.now)
        return Consequence(follows, record.reason, record.message)

    def _fail(self, record: attempts.AttemptEnd, reason: Reason, message: str) -> Consequence:
        """Write the job's failure, where nothing speaks against an outcome."""
        if (refusal := unrecorded_draws(self.newest, self.config)) is not None:
            checkpoints = volume.store(self.newest.spec, self.config)
            volume.record_proof(self.ledger, self.attempt, refusal, checkpoints)
            record = attempts.AttemptEnd(reason=refusal.reason, message=refusal.message)
            why = verdicts.risks_a_lease(self.newest, self.attempt)
            return self._end(record, Follows.HELD, why)
        attempts.fail(
            self.ledger, self.attempt, end=record, reason=reason, message=message, now=self.now
        )
        return Consequence(Follows.LOOK, reason, message)
