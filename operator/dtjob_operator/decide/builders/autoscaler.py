"""The HorizontalPodAutoscaler of a job, which changes `spec.workers.replicas` by its scale."""

from __future__ import annotations

from dtjob_api.job.autoscaling import Autoscaling
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json


def autoscaler(job: DistributedTrainingJob, autoscaling: Autoscaling) -> Json:
    """Bounds, metrics and behaviour are the user's; what scales is the job itself."""
    target = {"apiVersion": job.api_version, "kind": job.kind, "name": job.metadata.name}
    asked = {field: value for field, value in autoscaling.to_dict().items() if value}
    return {
        "apiVersion": kinds.AUTOSCALER.api_version,
        "kind": kinds.AUTOSCALER.name,
        "metadata": names.child_metadata(job),
        "spec": {"scaleTargetRef": target} | asked,
    }
