"""The condition `Suspended`: whether a job rests, and how far it is from it."""

from __future__ import annotations

from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.situation import Situation
from dtjob_operator.decide.status.condition_state import ConditionState
from dtjob_operator.read.status_conditions import condition


def suspended(situation: Situation) -> ConditionState | None:
    """The condition; None for a job that was never suspended."""
    kind = ConditionType.SUSPENDED
    if situation.overdue is not None and condition(situation.stored, kind) is None:
        return None
    if situation.at_rest and situation.overdue is None:
        state = resting(situation)
        return ConditionState(kind, state.reason is Reason.SUSPENDED, state.reason, state.message)
    if situation.job.spec.suspend and situation.ledger is not None:
        return ConditionState(
            kind, False, Reason.SUSPENDING, "the workers are not told to stop yet"
        )
    if condition(situation.stored, kind) is None:
        return None
    return ConditionState(kind, False, Reason.RESUMED, "the job goes on")


def resting(situation: Situation) -> ConditionState:
    """What `Running` says of a job whose workers are ordered to stop."""
    kind, pods = ConditionType.RUNNING, len(situation.observed.pods)
    if (why := situation.overdue) is not None:
        return ConditionState(kind, False, why.reason, f"{why.message}: its pods leave")
    if pods == 0:
        message = "no pod is left; set spec.suspend to false to go on"
        return ConditionState(kind, False, Reason.SUSPENDED, message)
    if situation.gang_formed:
        message = "the workers finish their step and save"
    else:
        message = f"{pods} {'pod is' if pods == 1 else 'pods are'} leaving"
    return ConditionState(kind, False, Reason.SUSPENDING, message)
