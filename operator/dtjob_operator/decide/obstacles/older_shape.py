"""A job whose workers are all in one StatefulSet, as an older operator made it: left as it is."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import ROLE_LABEL, Json
from dtjob_operator.terms.observed import Observed


def older_shape(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """That the job has such a StatefulSet: its selector can't be changed, nor its pods taken over.

    How many pods it has proves nothing: anybody may scale one of today's.
    """
    stored = observed.coordinator_set
    if stored is None or not names.is_ours(stored, job) or not has_older_shape(stored):
        return None
    name, namespace = job.metadata.name, names.namespace(job)
    return Finding(
        Reason.MADE_BY_OLDER_OPERATOR,
        f"StatefulSet {stored['metadata']['name']} in namespace {namespace} holds all workers of "
        "this job, as an older version of the operator made it, and this version can't take them "
        "over. Nothing is made or repaired, and its pods run until the job is deleted: do that "
        f"(kubectl delete dtjob {name} -n {namespace}) once it has ended or need not go on, and "
        "apply it again, which makes a new job that spends anew",
    )


def has_older_shape(stateful_set: Json) -> bool:
    """Whether a StatefulSet of a job's own selects its pods whatever their role."""
    selector = stateful_set["spec"].get("selector") or {}
    return ROLE_LABEL not in (selector.get("matchLabels") or {})


KIND = ObstacleKind(
    detect=lambda facts: older_shape(facts.observed, facts.job),
    conditions=OF_CHILDREN,
    children=Children.LEFT,
)
