"""The PodDisruptionBudget of a job's workers: an eviction takes one of them at a time."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import JOB_UID_LABEL, Json


def disruption_budget(job: DistributedTrainingJob) -> Json:
    """One for the pods of both StatefulSets: drained nodes cost as few attempts as they can.

    One for the coordinator alone would let no node be drained that it runs on. A worker that is not
    ready keeps no node from being drained: a gang that can't form has nothing to lose.
    """
    return {
        "apiVersion": kinds.DISRUPTION_BUDGET.api_version,
        "kind": kinds.DISRUPTION_BUDGET.name,
        "metadata": names.child_metadata(job),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {JOB_UID_LABEL: names.selector(job)[JOB_UID_LABEL]}},
        },
    }
