"""Which of a job's children to apply now, missing or drifted ones, and which to delete."""

from __future__ import annotations

from collections.abc import Iterator

from dtjob_api.wire.positions import Role
from dtjob_operator.decide.child_kinds import CHILD_KINDS, ChildKind
from dtjob_operator.decide.deadlines import seconds_held, seconds_kept
from dtjob_operator.decide.drift import differs
from dtjob_operator.decide.gang_sets import desired_set
from dtjob_operator.decide.lost_nodes import overdue_pods
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.obstacles.older_shape import has_older_shape
from dtjob_operator.decide.situation import Situation
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.decision import ObjectRef
from dtjob_operator.terms.kinds import Json, Kind


def applies(situation: Situation) -> Iterator[Json]:
    """Desired objects that are missing or differ, in the order in which they are needed.

    What lets workers stop comes first, so that nothing else that is refused keeps a job from coming
    to rest. After the outcome nothing is made any more.
    """
    if situation.outcome is None and not situation.finished:
        if situation.children is Children.RELEASED:
            yield from _scaled_down(situation)
        elif situation.children is Children.KEPT and (situation.ledger or situation.plan):
            changes = sorted(_repaired(situation), key=lambda each: not _lets_stop(*each))
            yield from (wanted for wanted, _stored in changes)


def _repaired(situation: Situation) -> Iterator[tuple[Json, Json | None]]:
    """What is to be applied, beside what is stored."""
    job = situation.job
    for child in CHILD_KINDS:
        stored = child.stored(situation.observed)
        if not child.asked_for(job) or (stored is not None and not child.is_own(stored, job)):
            continue
        if stored is not None and child.is_in_the_way(situation, stored):
            continue
        if stored is None and child.is_of_pods and _rests(situation):
            continue
        if (wanted := child.wanted(situation)) is not None:
            for changed in _if_changed(wanted, stored):
                yield changed, stored


def _lets_stop(wanted: Json, stored: Json | None) -> bool:
    """Whether it is an order to workers that are there, or takes some of their pods away."""
    if stored is None:
        return False
    if wanted["kind"] == kinds.STATEFUL_SET.name:
        return bool(wanted["spec"]["replicas"] < stored["spec"].get("replicas", 0))
    return bool(wanted["kind"] == kinds.LEDGER.name)


def _rests(situation: Situation) -> bool:
    """Whether the job has no pods, and is to have none."""
    has_none = situation.ledger is None or (situation.at_rest and not situation.observed.pods)
    return situation.job.spec.suspend and has_none


def deletes(situation: Situation) -> Iterator[ObjectRef]:
    """Children of ours that are in the way of what is wanted now, or of which nothing is any more.

    Once the stored status says that the job has ended its pods go, then all that was for them, and
    in the end the job, as `spec.runPolicy` says.
    """
    job = situation.job
    for child in CHILD_KINDS:
        stored = child.stored(situation.observed)
        if stored is None or _is_being_deleted(stored) or not child.is_own(stored, job):
            continue
        if _goes(situation, child, stored):
            yield _reference(stored, child.kind)
    for lost in overdue_pods(situation):
        yield _reference(lost.pod, kinds.POD, by_force=True)
    if _job_goes(situation):
        yield _reference(situation.observed.job, kinds.JOB)


def _reference(stored: Json, kind: Kind, *, by_force: bool = False) -> ObjectRef:
    metadata = stored["metadata"]
    return ObjectRef(
        api_version=kind.api_version,
        kind=kind.name,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        by_force=by_force,
    )


def _job_goes(situation: Situation) -> bool:
    """Whether the job itself is deleted: all that it spent is reported, and no pod is left."""
    observed = situation.observed
    if not situation.finished or observed.pods or observed.spent_pending:
        return False
    return seconds_kept(situation) == 0


def _goes(situation: Situation, child: ChildKind, stored: Json) -> bool:
    if situation.finished:
        if child.is_shared or not child.is_of_pods:
            return False
        if child.kind is kinds.STATEFUL_SET and has_older_shape(stored):
            return False
        if seconds_held(situation) > 0:
            return False
        return child.makes_pods or not situation.observed.pods
    if situation.outcome is not None or situation.ledger is None:
        return False
    return child.is_in_the_way(situation, stored)


def _if_changed(wanted: Json, stored: Json | None) -> Iterator[Json]:
    """`wanted`, with the UID of what it changes, if it has to be applied."""
    if stored is None:
        yield wanted
    elif not _is_being_deleted(stored) and differs(stored, wanted):
        yield wanted | {"metadata": wanted["metadata"] | {"uid": stored["metadata"]["uid"]}}


def _is_being_deleted(stored: Json) -> bool:
    """Whether an object is on its way out; it is recreated only when it is gone."""
    return "deletionTimestamp" in stored["metadata"]


def _scaled_down(situation: Situation) -> Iterator[Json]:
    """The job's own StatefulSets at 0 pods; nothing is made, and nothing else is repaired."""
    for role in Role:
        stored = situation.observed.stateful_set(role)
        if stored is None or not names.is_ours(stored, situation.job) or has_older_shape(stored):
            continue
        if stored["spec"].get("replicas") != 0:
            yield from _if_changed(desired_set(situation, role, 0), stored)
