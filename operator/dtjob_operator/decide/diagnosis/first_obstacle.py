"""The first reason why a job's workers do not come up.

Each finding names the object, the cause and the remedy. `docs/reference/status.md` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.decide.diagnosis.crashes import crash
from dtjob_operator.decide.diagnosis.not_created import rejected_children, rejected_pods
from dtjob_operator.decide.diagnosis.not_started import metadata_remedy, not_started, unmounted
from dtjob_operator.decide.diagnosis.unlabelled import unlabelled
from dtjob_operator.decide.diagnosis.unscheduled import unscheduled
from dtjob_operator.read.pod_status import scheduled_at
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings


def diagnose(
    observed: Observed,
    job: DistributedTrainingJob,
    workers: int,
    now: datetime,
    settings: Settings,
) -> Finding | None:
    """The first obstacle between the job and its running workers, or None.

    Parameters
    ----------
    workers
        Pods that should be there.
    """
    stray = unlabelled(observed, job)
    finders = (
        rejected_children(observed.rejections),
        () if stray is None else (stray,),
        rejected_pods(observed, job, workers),
        _pods(observed, job, _settled(observed.pods, now, settings), now, settings),
    )
    return next((finding for finder in finders for finding in finder), None)


def _settled(pods: Iterable[Json], now: datetime, settings: Settings) -> list[Json]:
    """Pods that have had a node, or none, for long enough; not those that are being deleted."""
    least = timedelta(seconds=settings.settle_seconds)
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and now - scheduled_at(pod) >= least
    ]


def _pods(
    observed: Observed,
    job: DistributedTrainingJob,
    pods: list[Json],
    now: datetime,
    settings: Settings,
) -> Iterator[Finding]:
    """What the pods' status shows; what stops every pod comes first."""
    for pod in pods:
        yield from unscheduled(observed, pod, job, now)
    for pod in pods:
        yield from not_started(observed, pod, job, now)
    for pod in pods:
        yield from unmounted(observed, pod, job, now, settings)
    for pod in pods:
        if (found := crash(pod)) is not None and not found.held:
            yield Finding(found.reason, found.message + metadata_remedy(found.message, job))
