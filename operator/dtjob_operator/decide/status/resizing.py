"""The condition `Resized`: whether the gang is as large as is asked for, or when it will be."""

from __future__ import annotations

from dtjob_api.ledger.privacy_ledger import Order
from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.run_order import is_growing, waits_for_a_checkpoint
from dtjob_operator.decide.situation import Situation
from dtjob_operator.decide.status.condition_state import ConditionState
from dtjob_operator.read.status_conditions import condition
from dtjob_operator.terms import formatting


def resized(situation: Situation) -> ConditionState | None:
    """The condition; None for a job of which no other number was ever asked."""
    if situation.ledger is None:
        return None
    run = situation.ledger.spec.run
    if situation.target != run.workers:
        return _state(False, *_outstanding(situation, run))
    if meets_anew(situation):
        return _state(False, Reason.RESIZING, meeting(situation))
    if condition(situation.stored, ConditionType.RESIZED) is None:
        return None
    return _state(True, Reason.RESIZED, f"the gang has {formatting.workers(run.workers)}")


def meets_anew(situation: Situation) -> bool:
    """Whether the gang is between two sizes: it stops with one, or meets in another."""
    last = situation.last_attempt
    if situation.at_rest or last is None or not situation.follows_a_new_order:
        return False
    return last.workers is not None and last.workers != situation.workers


def meeting(situation: Situation) -> str:
    """What the gang is at, between two numbers of workers."""
    if situation.gang_formed:
        return f"the workers finish their step and save, then meet as {_size(situation)}"
    return f"{situation.ready} of {_size(situation)} are ready to meet"


def _size(situation: Situation) -> str:
    return formatting.workers(situation.workers)


def _outstanding(situation: Situation, run: Order) -> tuple[Reason, str]:
    """Why the gang does not have the number that is asked for, and what comes next."""
    has, asked = formatting.workers(run.workers), situation.target
    if run.instead_of == asked:
        return Reason.RESIZE_FAILED, _failure(situation, run, asked)
    if situation.at_rest:
        message = f"the job is suspended, and goes on with {formatting.workers(asked)}"
        return Reason.WAITING_FOR_TRAINING, message
    if is_growing(situation) and situation.ready < asked:
        blocked = situation.growth_obstacle
        trains = "trains" if run.workers == 1 else "train"
        message = f"{situation.ready} of {asked} worker pods are ready; {has} {trains} meanwhile"
        return Reason.ADDING_WORKERS, f"{message}: {blocked.message}" if blocked else message
    if waits_for_a_checkpoint(situation):
        message = f"the number changes from {run.workers} to {asked} after the next checkpoint"
        return Reason.WAITING_FOR_CHECKPOINT, message
    message = f"the number changes from {run.workers} to {asked} once the job trains"
    return Reason.WAITING_FOR_TRAINING, message


def _failure(situation: Situation, run: Order, asked: int) -> str:
    tried = [each for each in situation.attempts if each.workers == asked]
    why = f" (attempt {tried[-1].attempt}: {tried[-1].message})" if tried else ""
    return (
        f"the gang could not train with {formatting.workers(asked)}{why} and goes on with "
        f"{run.workers}: put it right, then suspend and resume the job, or ask for another number "
        "in spec.workers.replicas"
    )


def _state(status: bool, reason: Reason, message: str) -> ConditionState:
    return ConditionState(ConditionType.RESIZED, status, reason, message)
