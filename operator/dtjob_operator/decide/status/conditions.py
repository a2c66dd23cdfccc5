"""The conditions of a job: metav1 shape, one meaning each, reasons of `dtjob_api.reasons`.

`Running` carries the reason of whatever keeps a job from training, so that there is one place to
look. The other conditions show what that concerns.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from dtjob_api import shown
from dtjob_api.job.privacy import PrivacyMode
from dtjob_api.ledger import ending
from dtjob_api.ledger.privacy_ledger import Outcome, PrivacyLedger, PrivacyPlan
from dtjob_api.model import timestamp
from dtjob_api.reasons import ENDED_IN_ORDER, ConditionType, Reason, known
from dtjob_operator.decide.calibrating import calibrating
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.run_order import begins_in_order
from dtjob_operator.decide.situation import Situation
from dtjob_operator.decide.status.condition_state import ConditionState
from dtjob_operator.decide.status.leaving import leaving
from dtjob_operator.decide.status.resizing import meeting, meets_anew, resized
from dtjob_operator.decide.status.suspension import resting, suspended
from dtjob_operator.read.status_conditions import is_true
from dtjob_operator.terms import formatting
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json

# Of a message in JSON: several conditions may have the same one, and a status is to stay below
# 32 KiB, whatever alphabet others write in. No more characters than the definition allows either.
_MOST_BYTES = 4096
_STALE_INTERVALS = 3
# Calibration comes this near to what is asked for, unless it is at the least noise there is.
_NEAR = 0.95
_STALE_AT_LEAST_SECONDS = 120.0


def conditions(situation: Situation, refusal: Finding | None, now: datetime) -> list[Json]:
    """All conditions, new ones after those that are stored.

    Parameters
    ----------
    refusal
        Why the job is refused at admission, if it is.
    """
    states = _states(situation, refusal, now)
    return _merged(situation.stored, states, situation.job.metadata.generation, now)


def with_condition(
    stored: Json, state: ConditionState, generation: int | None, now: datetime
) -> list[Json]:
    """The stored conditions with one of them replaced."""
    return _merged(stored, [state], generation, now)


def _merged(
    status: Json, states: Iterable[ConditionState], generation: int | None, now: datetime
) -> list[Json]:
    merged = {c["type"]: c for c in status.get("conditions") or []}
    for state in states:
        merged[state.type] = _written(state, merged.get(state.type), generation, now)
    return sorted(merged.values(), key=lambda c: _ORDER.get(c["type"], len(_ORDER)))


_ORDER = {str(kind): place for place, kind in enumerate(ConditionType)}


def _written(
    state: ConditionState, stored: Json | None, generation: int | None, now: datetime
) -> Json:
    """metav1.Condition: the transition time moves only when the status does."""
    status = {True: "True", False: "False", None: "Unknown"}[state.status]
    same = stored is not None and stored["status"] == status
    written: Json = {
        "type": str(state.type),
        "status": status,
        "reason": str(state.reason),
        "message": _shortened(shown.line(state.message)),
        "lastTransitionTime": stored["lastTransitionTime"] if same and stored else timestamp(now),
    }
    if generation is not None:
        written["observedGeneration"] = generation
    return written


def _shortened(text: str) -> str:
    """As much of a text from its beginning as has `_MOST_BYTES` in JSON."""
    text = text[:_MOST_BYTES]
    if _size(text) <= _MOST_BYTES:
        return text
    lengths = range(len(text))
    return text[: bisect_right(lengths, _MOST_BYTES, key=lambda n: _size(text[:n])) - 1]


def _size(text: str) -> int:
    """Bytes of a text in JSON, without the quotes around it."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def _states(
    situation: Situation, refusal: Finding | None, now: datetime
) -> Iterator[ConditionState]:
    outcome, failure, ended = situation.outcome, situation.failure, "the job has ended"
    if refusal is not None or outcome is not None or failure is not None:
        yield ConditionState(ConditionType.RESOURCES_READY, False, Reason.FINISHED, ended)
        yield ConditionState(ConditionType.RENDEZVOUS_READY, False, Reason.FINISHED, ended)
        yield ConditionState(ConditionType.NETWORK_RESTRICTED, False, Reason.FINISHED, ended)
    if refusal is not None:
        yield ConditionState(ConditionType.ACCEPTED, False, refusal.reason, refusal.message)
        yield ConditionState(ConditionType.RUNNING, False, refusal.reason, refusal.message)
        yield ConditionState(ConditionType.FAILED, True, refusal.reason, refusal.message)
        return
    yield from _accepted(situation)
    if failure is not None:
        yield ConditionState(ConditionType.RUNNING, False, Reason.FINISHED, ended)
        yield ConditionState(ConditionType.FAILED, True, failure.reason, failure.message)
        return
    if outcome is not None and situation.ledger is not None:
        yield ConditionState(ConditionType.RUNNING, False, Reason.FINISHED, ended)
        yield _ended(situation, situation.ledger, outcome)
        return
    yield _resources_ready(situation)
    if situation.unreadable is None:  # else nothing says whether they have met since
        yield _rendezvous_ready(situation)
    yield _running(situation)
    network = situation.restriction
    yield ConditionState(
        ConditionType.NETWORK_RESTRICTED, network.status, network.reason, network.message
    )
    if situation.ledger is not None:
        yield _checkpoint_fresh(situation, situation.ledger, now)
    yield from (state for state in (suspended(situation), resized(situation)) if state)


def _ended(situation: Situation, ledger: PrivacyLedger, outcome: Outcome) -> ConditionState:
    kind, message = ConditionType(outcome.state), ending.message(ledger)
    if not situation.observed.is_done_before:
        return ConditionState(kind, True, outcome.reason, message)
    message = (
        f"an earlier job of this name has done the same work, as PrivacyLedger "
        f"{ledger.metadata.name} records: {message}. Nothing is run or spent again; raise "
        "spec.rerun to run it once more, which spends anew"
    )
    return ConditionState(kind, True, Reason.ALREADY_COMPLETED, message)


def _accepted(situation: Situation) -> Iterator[ConditionState]:
    if situation.ledger is not None:
        message = _promise(situation.ledger.spec.plan)
        yield ConditionState(ConditionType.ACCEPTED, True, Reason.PLANNED, message)
        return
    # True: there was a ledger. False: the job itself could not be read, and now it can.
    if situation.unreadable is None and not is_true(situation.stored, ConditionType.ACCEPTED):
        yield ConditionState(ConditionType.ACCEPTED, None, Reason.PLANNING, _planning(situation))


def _planning(situation: Situation) -> str:
    return calibrating(situation.observed.planning_trouble, situation.observed.plans_before)


def _promise(plan: PrivacyPlan) -> str:
    draws = f"{plan.steps} steps and {plan.replay_reserve_steps} draws of reserve"
    if plan.mode is PrivacyMode.DISABLED:
        return f"{draws}, without privacy (spec.privacy.mode is Disabled)"
    epsilon = formatting.rounded_up(plan.epsilon_guaranteed or 0, 3)
    promise = (
        f"noise multiplier {formatting.rounded_down(plan.noise_multiplier or 0, 4)} for {draws}: "
        f"epsilon at most {epsilon} at delta {formatting.exact(plan.delta or 0)}"
    )
    if plan.epsilon is not None and (plan.epsilon_guaranteed or 0) < _NEAR * plan.epsilon:
        promise += (
            f", less than the {formatting.exact(plan.epsilon)} that is asked for, since no less "
            "noise can be planned"
        )
    return promise


def _resources_ready(situation: Situation) -> ConditionState:
    kind = ConditionType.RESOURCES_READY
    if (blocked := situation.obstacle_to(kind)) is not None:
        return ConditionState(kind, False, blocked.reason, blocked.message)
    if situation.ledger is None:
        message = "the workers wait for the privacy plan"
        return ConditionState(kind, False, Reason.CREATING_RESOURCES, message)
    if situation.gang_formed or situation.ready >= situation.workers:
        message = "all children exist and their pods are up"
        return ConditionState(kind, True, Reason.RESOURCES_CREATED, message)
    return ConditionState(kind, False, Reason.CREATING_RESOURCES, _pods_ready(situation))


def _rendezvous_ready(situation: Situation) -> ConditionState:
    kind = ConditionType.RENDEZVOUS_READY
    if situation.gang_formed and situation.children is not Children.RELEASED:
        message = (
            "the worker is up"
            if situation.workers == 1
            else f"all {situation.workers} workers have met"
        )
        return ConditionState(kind, True, Reason.RENDEZVOUS_COMPLETE, message)
    return ConditionState(kind, False, Reason.WAITING_FOR_WORKERS, _pods_ready(situation))


def _pods_ready(situation: Situation) -> str:
    return f"{situation.ready} of {situation.workers} worker pods are ready"


def _running(situation: Situation) -> ConditionState:
    """What keeps the job from training, or what it is at, and which pods leave meanwhile."""
    kind = ConditionType.RUNNING
    if not situation.training and (blocked := situation.obstacle_to(kind)) is not None:
        # That steps are executed only the ledger says.
        status = False if situation.unreadable is None else None
        return ConditionState(kind, status, blocked.reason, blocked.message)
    state, leave = _course(situation), leaving(situation.observed.pods, situation.now)
    return replace(state, message=f"{state.message}; {leave}") if leave else state


def _course(situation: Situation) -> ConditionState:
    kind = ConditionType.RUNNING
    if situation.at_rest:
        return resting(situation)
    if meets_anew(situation):
        return ConditionState(kind, False, Reason.RESIZING, meeting(situation))
    if situation.training:
        unread = f"; {situation.unreadable_report}" if situation.unreadable_report else ""
        return ConditionState(kind, True, Reason.TRAINING, f"steps are executed{unread}")
    if situation.gang_formed:
        stage = situation.report.stage if situation.report else ""
        return ConditionState(
            kind, False, Reason.PREFLIGHT, stage or "the task is tried on synthetic data"
        )
    last = situation.last_attempt
    if last is not None and situation.has_ended_attempt and not begins_in_order(situation):
        if last.end is None:
            why = "worker 0 is gone or does not answer, and has left no record of how yet"
        elif last.reason in ENDED_IN_ORDER:
            why = "it was drained"
        else:
            reason = known(last.reason) or "no known reason"
            why = f"{reason}: {last.message or 'no more is known'}"
        return ConditionState(
            kind, False, Reason.RESTARTING, f"attempt {last.attempt} has ended: {why}"
        )
    if situation.ledger is None:
        return ConditionState(kind, False, Reason.PLANNING, _planning(situation))
    return ConditionState(kind, False, Reason.WAITING_FOR_WORKERS, _pods_ready(situation))


def _checkpoint_fresh(situation: Situation, ledger: PrivacyLedger, now: datetime) -> ConditionState:
    kind = ConditionType.CHECKPOINT_FRESH
    if (blocked := situation.obstacle_to(kind)) is not None:
        return ConditionState(kind, False, blocked.reason, blocked.message)
    record = ledger.status.checkpoint
    if record is None:
        message = "the first checkpoint is written before the first draw"
        return ConditionState(kind, False, Reason.NO_CHECKPOINT_YET, message)
    plan = ledger.spec.plan
    rate = situation.report.samples_per_second if situation.report else None
    if situation.training and rate:
        # In seconds: a rate near 0 makes more of them than a timedelta holds.
        interval = plan.lease_steps * plan.batch_size / rate
        limit = max(_STALE_INTERVALS * interval, _STALE_AT_LEAST_SECONDS)
        if (now - record.time).total_seconds() > limit:
            message = (
                f"the newest checkpoint, of step {record.step}, is older than "
                f"{limit:.0f} s, {_STALE_INTERVALS} times what {plan.lease_steps} "
                "steps take: look at the checkpoint volume and the API server's health"
            )
            return ConditionState(kind, False, Reason.CHECKPOINT_STALE, message)
    message = "the ledger points to a durable checkpoint (status.checkpoint)"
    return ConditionState(kind, True, Reason.CHECKPOINT_RECORDED, message)
