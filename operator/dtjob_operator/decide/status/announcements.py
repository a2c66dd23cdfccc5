"""Events on the job as `kubectl describe` shows them, one for each transition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_operator.decide.lost_nodes import LostPod
from dtjob_operator.decide.status.pacing import QUIET
from dtjob_operator.read.status_conditions import condition, is_true
from dtjob_operator.terms import formatting
from dtjob_operator.terms.decision import Event
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed

_ANNOUNCED = frozenset(
    {
        Reason.SUSPENDING,
        Reason.SUSPENDED,
        Reason.RESUMED,
        Reason.ADDING_WORKERS,
        Reason.RESIZING,
        Reason.RESIZED,
    }
)
SPENDS_AGAIN = "SpendsAgain"
POD_ENDED_BY_FORCE = "PodEndedByForce"


def announcements(stored: Json, new: Json, workers: int) -> tuple[Event, ...]:
    """Events to record when the status goes from `stored` to `new`, of a gang of `workers`."""
    by_reason: dict[str, Event] = {}
    for event in (
        *_milestones(stored, new, workers),
        *_changes(stored, new),
        *_troubles(stored, new),
    ):
        by_reason.setdefault(event.reason, event)
    return tuple(by_reason.values())


def spends_again(observed: Observed) -> tuple[Event, ...]:
    """That earlier runs of the same work have spent what this one will spend once more."""
    if not observed.earlier_runs:
        return ()
    found = ", ".join(f"{run.ledger} ({run.charged} draws)" for run in observed.earlier_runs[:4])
    more = len(observed.earlier_runs) - 4
    found += f" and {more} more" if more > 0 else ""
    message = (
        f"the same work was begun before, and what that has charged stays spent: {found}. This run "
        "spends anew beside it"
    )
    return (Event("Warning", SPENDS_AGAIN, message),)


def ended_by_force(pods: Iterable[LostPod]) -> Iterator[Event]:
    """That pods are deleted which nobody has reported to have ended."""
    for each in pods:
        yield Event(
            "Warning",
            POD_ENDED_BY_FORCE,
            f"pod {each.name} is deleted by force: its node {each.node} {each.why}",
        )


def _milestones(stored: Json, new: Json, workers: int) -> Iterator[Event]:
    for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED):
        milestone = condition(new, kind)
        if milestone is not None and is_true(new, kind) and not is_true(stored, kind):
            yield Event(
                "Warning" if kind is ConditionType.FAILED else "Normal",
                milestone["reason"],
                milestone["message"] or str(kind),
            )
    if is_true(new, ConditionType.RUNNING) and not is_true(stored, ConditionType.RUNNING):
        step, total = new["progress"]["step"], new["progress"]["totalSteps"]
        yield Event(
            "Normal",
            str(Reason.TRAINING),
            f"attempt {new['attempts']} trains from step {step} of {total} with "
            f"{formatting.workers(workers)}",
            # An operator that is killed here repeats this, and the job may have gone on by then.
            about=f"attempt {new['attempts']}",
        )
    if new.get("phase") == Phase.RESTARTING and stored.get("phase") == Phase.RUNNING:
        why = condition(new, ConditionType.RUNNING)
        if why is not None and why["reason"] == Reason.RESTARTING:
            yield Event("Warning", why["reason"], why["message"])


def _changes(stored: Json, new: Json) -> Iterator[Event]:
    """What was asked of a job and has come about, or begins."""
    for kind in (ConditionType.SUSPENDED, ConditionType.RESIZED):
        now, before = condition(new, kind), condition(stored, kind)
        if now is None or now["reason"] not in _ANNOUNCED:
            continue
        if before is None or before["reason"] != now["reason"]:
            yield Event("Normal", now["reason"], now["message"])


def _troubles(stored: Json, new: Json) -> Iterator[Event]:
    for now in new.get("conditions") or []:
        before = condition(stored, ConditionType(now["type"]))
        if now["status"] != "False" or now["reason"] in QUIET:
            continue
        if before is None or (before["status"], before["reason"]) != (now["status"], now["reason"]):
            yield Event("Warning", now["reason"], now["message"])
