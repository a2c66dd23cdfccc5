"""What the workers are ordered (`spec.run` of the ledger), and how many pods that takes.

A gang that trains is only ever asked to meet anew: more pods come up before it is, pods that are
too many leave once it has stopped. Between two sizes there is always one that could train.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from dtjob_api.ledger.privacy_ledger import Order, OrderState
from dtjob_api.reasons import ENDED_IN_ORDER
from dtjob_operator.decide.deadlines import overdue
from dtjob_operator.decide.facts import Facts
from dtjob_operator.read import pod_status
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.kinds import Json

#: The least that a gang has to stop in order, whatever `stallSeconds` is.
_STOP_SECONDS = 60
#: How long more workers may take to come up once the others wait for them.
_GROWTH_PATIENCE = timedelta(seconds=120)


def next_order(facts: Facts) -> Order | None:
    """The order to give now; None while that of the ledger stands, or before there is a ledger."""
    if facts.ledger is None:
        return None
    run = facts.ledger.spec.run
    if _is_to_rest(facts):
        return _next(run, facts.now, run.workers, OrderState.DRAIN) if not facts.at_rest else None
    if facts.at_rest:
        return _next(run, facts.now, facts.target)
    if (before := _workers_before(facts)) is not None:
        if _could_not_train(facts):
            return _next(run, facts.now, before, instead_of=run.workers)
        if _did_not_come(facts, before):
            return _next(run, facts.now, before)
    if facts.target != run.workers and _may_change(facts):
        return _next(run, facts.now, facts.target)
    return None


def pods_wanted(facts: Facts) -> int:
    """How many worker pods there should be now; those at the last positions leave first."""
    if facts.ledger is None:
        return 0
    workers, last = facts.ledger.spec.run.workers, facts.last_attempt
    if facts.gang_formed and last is not None and last.workers is not None:
        workers = max(workers, last.workers)  # until it has stopped, it needs all of its own
    if facts.at_rest:
        return workers if _is_stopping(facts) else 0
    return max(workers, facts.target) if is_growing(facts) else workers


def is_growing(facts: Facts) -> bool:
    """Whether more workers come up while the gang trains with those that it has.

    Beside a gang that comes up itself no others do: they could take its places. Those that are
    there stay while all of the gang's have one.
    """
    if facts.ledger is None or not _is_asked_to_grow(facts):
        return False
    if facts.is_training:
        return True
    return _positions(facts, _has_node) > set(range(facts.ledger.spec.run.workers))


def waits_for_a_checkpoint(facts: Facts) -> bool:
    """Whether a resize waits for the first checkpoint of the attempt that trains.

    So that an autoscaler that moves all the time leaves time to train.
    """
    record = facts.ledger.status.checkpoint if facts.ledger else None
    last = facts.last_attempt
    return facts.is_training and not (
        record is not None and last is not None and record.attempt == last.attempt and record.step
    )


def begins_in_order(facts: Facts) -> bool:
    """Whether a new order is what the gang comes up for, and not a failure."""
    last = facts.last_attempt
    return facts.follows_a_new_order and last is not None and last.reason in ENDED_IN_ORDER


def _next(
    run: Order,
    now: datetime,
    workers: int,
    state: OrderState = OrderState.RUN,
    instead_of: int | None = None,
) -> Order:
    return Order(
        generation=run.generation + 1,
        workers=workers,
        state=state,
        time=now.replace(microsecond=0),
        instead_of=instead_of,
    )


def _is_to_rest(facts: Facts) -> bool:
    """Whether the job is suspended, or is to fail since it has taken too long."""
    return facts.job.spec.suspend or overdue(facts) is not None


def _is_stopping(facts: Facts) -> bool:
    """Whether pods are still needed: their gang makes its last step and saves.

    What takes longer is stopped by its pods' end, as any other pod.
    """
    ledger = facts.ledger
    if ledger is None or not facts.gang_formed:
        return False
    run = ledger.spec.run
    if (ledger.status.drained or 0) >= run.generation:
        return False
    patience = timedelta(seconds=max(facts.job.spec.run_policy.stall_seconds, _STOP_SECONDS))
    return run.time is not None and elapsed(run.time, facts.now) < patience


def _is_asked_to_grow(facts: Facts) -> bool:
    ledger = facts.ledger
    if ledger is None or facts.at_rest or _is_to_rest(facts):
        return False
    run = ledger.spec.run
    return facts.target > run.workers and facts.target != run.instead_of


def _may_change(facts: Facts) -> bool:
    """Whether another number of workers may be ordered now, which differs from that of the order.

    A gang that has never trained, or would have to meet anew anyway, gives nothing up for fewer.
    """
    ledger = facts.ledger
    if ledger is None or _is_held(facts):
        return False
    if ledger.status.lease is None:
        return True
    if waits_for_a_checkpoint(facts) or (facts.gang_formed and facts.follows_a_new_order):
        return False
    if facts.target < ledger.spec.run.workers:
        return facts.is_training or not facts.gang_formed
    return facts.is_training and _is_asked_to_grow(facts) and _are_ready(facts, facts.target)


def _is_held(facts: Facts) -> bool:
    """Whether the gang waits for a person: a new order would say that there was one."""
    last = facts.last_attempt
    return (
        facts.ledger is not None
        and last is not None
        and last.hold is not None
        and last.hold.generation == facts.ledger.spec.run.generation
    )


def _workers_before(facts: Facts) -> int | None:
    """With how many workers the gang trained last, where it is ordered to meet with more."""
    ledger = facts.ledger
    if ledger is None or ledger.status.lease is None:
        return None
    trained = ledger.status.lease.attempt
    found = next((each.workers for each in facts.attempts if each.attempt == trained), None)
    return found if found is not None and found < ledger.spec.run.workers else None


def _could_not_train(facts: Facts) -> bool:
    """Whether an attempt with more workers has failed before it trained."""
    last = facts.last_attempt
    if last is None or last.end is None or facts.follows_a_new_order:
        return False
    return last.reason not in ENDED_IN_ORDER


def _did_not_come(facts: Facts, before: int) -> bool:
    """Whether more workers are awaited in vain by those that could train."""
    ledger = facts.ledger
    if ledger is None or ledger.spec.run.time is None or facts.gang_formed:
        return False
    if elapsed(ledger.spec.run.time, facts.now) < _GROWTH_PATIENCE:
        return False
    return _are_ready(facts, before) and not _are_ready(facts, ledger.spec.run.workers)


def _are_ready(facts: Facts, workers: int) -> bool:
    return _positions(facts, pod_status.is_ready) >= set(range(workers))


def _positions(facts: Facts, are: Callable[[Json], bool]) -> set[int | None]:
    """Positions of the pods of which something is true."""
    child = names.child_name(facts.job)
    return {names.position_of(child, pod) for pod in facts.observed.pods if are(pod)}


def _has_node(pod: Json) -> bool:
    return "nodeName" in pod.get("spec", {})
