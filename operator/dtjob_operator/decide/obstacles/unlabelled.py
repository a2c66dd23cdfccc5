"""Worker pods that have lost the label by which StatefulSet and NetworkPolicy know them."""

from __future__ import annotations

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import NetworkPolicyMode
from dtjob_api.reasons import Reason
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import JOB_UID_LABEL
from dtjob_operator.terms.observed import Observed


def unlabelled(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """The first of them, if there are any."""
    if not observed.unlabelled:
        return None
    first = observed.unlabelled[0]
    others = len(observed.unlabelled) - 1
    more = f" (and {others} more)" if others else ""
    outside = (
        "the job's NetworkPolicy does not hold for it, so that whatever reaches it may talk to it, "
        "while the other workers may not, "
        if job.spec.network.policy is NetworkPolicyMode.RESTRICTED
        else ""
    )
    return Finding(
        Reason.WORKER_UNLABELLED,
        f"pod {first} in namespace {names.namespace(job)}{more} has a worker's name but not its "
        f"label {JOB_UID_LABEL}={derive.job_uid(job)}: {outside}and the StatefulSet can't put a "
        f"worker in its place. Delete it (kubectl delete pod {first}), and the worker comes back",
    )


KIND = ObstacleKind(
    detect=lambda facts: unlabelled(facts.observed, facts.job),
    conditions=OF_PODS,
    of_a_start=True,
)
