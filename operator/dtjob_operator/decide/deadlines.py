"""How long a job may take, and for how long what is left of it stays: `spec.runPolicy`."""

from __future__ import annotations

from datetime import datetime, timedelta

from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.read.status_conditions import condition, terminal
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.decision import Finding


def overdue(facts: Facts) -> Finding | None:
    """Why a job is to fail that has taken too long; None while it may go on.

    What a job has taken before it was last suspended is forgotten, as in batch/v1.
    """
    policy, since = facts.job.spec.run_policy, _going_since(facts)
    if facts.job.spec.suspend or since is None or facts.outcome is not None:
        return None
    taken = elapsed(since, facts.now).total_seconds()
    limit = policy.active_deadline_seconds
    if limit is not None and taken >= limit:
        return Finding(
            Reason.DEADLINE_EXCEEDED,
            f"the job has not ended within {limit} s (spec.runPolicy.activeDeadlineSeconds) of "
            "its start or its last resumption",
        )
    limit = policy.start_deadline_seconds
    if limit is not None and taken >= limit and not _has_trained_since(facts, since):
        return Finding(
            Reason.START_DEADLINE_EXCEEDED,
            f"the workers have not begun to train within {limit} s "
            "(spec.runPolicy.startDeadlineSeconds) of the job's start or its last resumption",
        )
    return None


def seconds_to_deadline(facts: Facts) -> float | None:
    """Seconds until the next deadline; None where there is none."""
    since = _going_since(facts)
    if since is None or facts.job.spec.suspend:
        return None
    policy, taken = facts.job.spec.run_policy, elapsed(since, facts.now).total_seconds()
    limits = (policy.active_deadline_seconds, policy.start_deadline_seconds)
    return min((limit - taken for limit in limits if limit and limit > taken), default=None)


def seconds_held(facts: Facts) -> float:
    """For how many seconds the pods of a job that has failed are kept for a look."""
    final, held = terminal(facts.stored), facts.job.spec.run_policy.hold_after_failure_seconds
    if final is None or final["type"] != ConditionType.FAILED:
        return 0.0
    return _left(final["lastTransitionTime"], held, facts.now)


def seconds_kept(facts: Facts) -> float | None:
    """For how many seconds a job that has ended is kept; None: for ever."""
    final, ttl = terminal(facts.stored), facts.job.spec.run_policy.ttl_seconds_after_finished
    if final is None or ttl is None:
        return None
    return _left(final["lastTransitionTime"], ttl, facts.now)


def _left(since: str, seconds: int, now: datetime) -> float:
    passed = elapsed(datetime.fromisoformat(since), now)
    return max(0.0, (timedelta(seconds=seconds) - passed).total_seconds())


def _going_since(facts: Facts) -> datetime | None:
    """When the job began or was last resumed; None before that."""
    suspended = condition(facts.stored, ConditionType.SUSPENDED)
    if suspended is not None:
        # Else it is about to be resumed: the status has yet to say so.
        is_resumed = suspended["reason"] == Reason.RESUMED
        return datetime.fromisoformat(suspended["lastTransitionTime"]) if is_resumed else None
    started = facts.stored.get("startTime")
    return datetime.fromisoformat(started) if started else None


def _has_trained_since(facts: Facts, since: datetime) -> bool:
    lease = facts.ledger.status.lease if facts.ledger else None
    leased = lease.attempt if lease is not None else 0
    return facts.is_training or any(
        each.attempt <= leased and each.start >= since for each in facts.attempts
    )
