"""What follows a failed attempt by its job's `runPolicy`: a rule, a pause, an end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dtjob_api.job.run_policy import (
    Backoff,
    FailureAction,
    FailureCause,
    FailurePolicy,
    FailureRule,
)
from dtjob_api.ledger.attempt_rules import is_failure
from dtjob_api.ledger.privacy_ledger import MAX_ATTEMPTS_KEPT, AttemptRecord
from dtjob_api.reasons import NO_FAILURE

RESTART_WINDOW = timedelta(hours=1)


@dataclass(frozen=True)
class Ruling:
    """The rule that fits a failure.

    Attributes
    ----------
    number
        Its place in `runPolicy.rules`, from 0.
    why
        What of it fits.
    """

    number: int
    why: str
    action: FailureAction

    @property
    def words(self) -> str:
        """What a message says of it."""
        return f"spec.runPolicy.rules[{self.number}] ({self.why}: {self.action})"


def ruling(
    rules: Sequence[FailureRule], reason: str, exit_code: int | None, signal: int | None
) -> Ruling | None:
    """The first rule that fits a failure; None where none does.

    Parameters
    ----------
    reason
        Of the attempt's end. Where a rank was killed for want of memory its signal says nothing.
    """
    for number, each in enumerate(rules):
        if (why := _fit(each, reason, exit_code, signal)) is not None:
            return Ruling(number, why, each.action)
    return None


def _fit(each: FailureRule, reason: str, exit_code: int | None, signal: int | None) -> str | None:
    cause = next((cause for cause in FailureCause if cause == reason), None)
    if cause is not None:
        return str(cause) if cause in each.causes else None
    if signal is not None:
        return f"signal {signal}" if signal in each.signals else None
    return f"exit code {exit_code}" if exit_code in each.exit_codes else None


def may_restart(
    attempts: Sequence[AttemptRecord],
    now: datetime,
    max_restarts: int,
    window: timedelta = RESTART_WINDOW,
) -> bool:
    """Whether another attempt may follow: at most `max_restarts` failures in the last `window`.

    Stops, drains and resizes are no failures, nor are attempts that would not train until a
    person puts ledger or volume right; and old failures are forgotten, so that a job of weeks is
    not ended by its eleventh lost node. The ledger keeps 20 attempts, failures longest, so more
    than 19 restarts can't be told from 19.

    Parameters
    ----------
    attempts
        The ledger's, the one that has just ended included.
    """
    failures = sum(ago < window and is_failure(record) for record, ago in _ended_ago(attempts, now))
    return failures <= min(max_restarts, MAX_ATTEMPTS_KEPT - 1)


def pause(
    attempts: Sequence[AttemptRecord], now: datetime, backoff: Backoff, share: float
) -> float:
    """Seconds before the attempt that follows a failure.

    Those that a rule ignores lengthen it as well: each may cost a lease.

    Parameters
    ----------
    share
        From 0 to 1, by chance: from half of the pause to all of it is waited.
    """
    failures = sum(
        ago < RESTART_WINDOW and record.reason not in NO_FAILURE
        for record, ago in _ended_ago(attempts, now)
    )
    if failures == 0:
        return 0.0
    whole = min(backoff.initial_seconds * 2.0 ** (failures - 1), float(backoff.max_seconds))
    return whole * (0.5 + 0.5 * share)


def exhausted(policy: FailurePolicy, last: str) -> str:
    """Why no attempt follows; `last` says how the last one ended."""
    return (
        f"more than {policy.max_restarts} restarts within an hour (runPolicy.maxRestarts); "
        f"the last time: {last}"
    )


def _ended_ago(
    attempts: Sequence[AttemptRecord], now: datetime
) -> Iterator[tuple[AttemptRecord, timedelta]]:
    """The attempts that have ended, the newest first, and how long ago that was.

    A clock may have been put right meanwhile, or be another machine's. An end that is later than
    now, or than that of a later attempt, was stamped by a clock that was ahead. Its time is then
    unknown, but it came before all that followed, which took at least as long as that clock shows.
    Where nothing is known it counts as now, so that restarts under clocks that jump still end.
    """
    earliest = later = now
    ago = timedelta()
    for record in reversed(attempts):
        if record.end is None:
            continue
        if record.end <= earliest:
            earliest, ago = record.end, now - record.end
        else:
            ago += max(timedelta(), later - record.end)
        yield record, ago
        ago += max(timedelta(), record.end - record.start)
        later = record.start
