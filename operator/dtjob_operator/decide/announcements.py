"""Events on the job as `kubectl describe` shows them, one for each transition."""

from __future__ import annotations

from collections.abc import Iterator

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_operator.decide.pacing import QUIET
from dtjob_operator.read.status_conditions import condition, is_true
from dtjob_operator.terms import formatting
from dtjob_operator.terms.decision import Event
from dtjob_operator.terms.kinds import Json

REPLICAS_LATCHED = "ReplicasLatched"
RUN_POLICY_DEFERRED = "RunPolicyDeferred"


def announcements(
    stored: Json,
    new: Json,
    job: DistributedTrainingJob,
    latched: int | None,
    deferred: tuple[str, ...],
) -> tuple[Event, ...]:
    """Events to record when the status goes from `stored` to `new`.

    Parameters
    ----------
    latched
        Worker pods that the ledger fixed, None before there is one.
    deferred
        Changes that the workers do not follow yet.
    """
    by_reason: dict[str, Event] = {}
    for event in (
        *_milestones(stored, new),
        *_troubles(stored, new),
        *_latched(stored, job, latched),
        *_deferred(stored, job, deferred),
    ):
        by_reason.setdefault(event.reason, event)
    return tuple(by_reason.values())


def _milestones(stored: Json, new: Json) -> Iterator[Event]:
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
            f"{formatting.workers(new['workers']['desired'])}",
            # An operator that is killed here repeats this, and the job may have gone on by then.
            about=f"attempt {new['attempts']}",
        )
    if new.get("phase") == Phase.RESTARTING and stored.get("phase") == Phase.RUNNING:
        why = condition(new, ConditionType.RUNNING)
        if why is not None and why["reason"] == Reason.RESTARTING:
            yield Event("Warning", why["reason"], why["message"])


def _troubles(stored: Json, new: Json) -> Iterator[Event]:
    for now in new.get("conditions") or []:
        before = condition(stored, ConditionType(now["type"]))
        if now["status"] != "False" or now["reason"] in QUIET:
            continue
        if before is None or (before["status"], before["reason"]) != (now["status"], now["reason"]):
            yield Event("Warning", now["reason"], now["message"])


def _latched(stored: Json, job: DistributedTrainingJob, latched: int | None) -> Iterator[Event]:
    if latched is None or latched == job.spec.workers.replicas:
        return
    if stored.get("observedGeneration") != job.metadata.generation:
        yield Event(
            "Warning",
            REPLICAS_LATCHED,
            f"spec.workers.replicas is {job.spec.workers.replicas}, but the job was started with "
            f"{formatting.workers(latched)} and keeps that number: create a new job for another",
        )


def _deferred(
    stored: Json, job: DistributedTrainingJob, deferred: tuple[str, ...]
) -> Iterator[Event]:
    if deferred and stored.get("observedGeneration") != job.metadata.generation:
        yield Event(
            "Warning",
            RUN_POLICY_DEFERRED,
            f"{'; '.join(deferred)}: the change takes effect when the job has no pods, or in a new "
            "job",
        )
