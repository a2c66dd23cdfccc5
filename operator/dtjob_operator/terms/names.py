"""Names, labels and addresses of a job's children: what builders and observers agree on."""

from __future__ import annotations

import re

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.model import API_GROUP
from dtjob_operator.terms.kinds import JOB_LABEL, JOB_UID_LABEL, WORKER_ACCOUNT, Json

FIELD_MANAGER = "dtjob-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
TEMPLATE_DIGEST = f"{API_GROUP}/template-digest"

WORKER_ROLE = "dtjob-worker"
"""The ClusterRole that comes with the operator's installation."""

WORKER_CONTAINER = "worker"
STATE_DIR = "/var/run/dtjob/state"
DATA_DIR = "/data"

TOKEN_DIR = "/var/run/dtjob/gang"  # noqa: S105
TOKEN_FILE = "token"  # noqa: S105

# The API reserves these two names, and the prefix dtjob-, among the volumes of a job's template.
CHECKPOINT_VOLUME = "checkpoints"
DATA_VOLUME = "data"

_ORDINAL = re.compile("0|[1-9][0-9]*")


def namespace(job: DistributedTrainingJob) -> str:
    """The job's namespace."""
    return job.metadata.namespace or "default"


def child_name(job: DistributedTrainingJob) -> str:
    """Name of what is the job's alone, its StatefulSet and ledger: another for each incarnation."""
    return derive.child_name(job.metadata.name, derive.job_uid(job))


def pod_name(job: DistributedTrainingJob, ordinal: int) -> str:
    """Name of a worker's pod."""
    return pod_of(child_name(job), ordinal)


def claim_name(job: DistributedTrainingJob, ordinal: int) -> str:
    """Name of a worker's checkpoint claim; ordinal 0's holds the job's state."""
    return claim_of(child_name(job), ordinal)


def pod_of(stateful_set: str, ordinal: int) -> str:
    """Name that a StatefulSet gives a pod."""
    return f"{stateful_set}-{ordinal}"


def claim_of(stateful_set: str, ordinal: int) -> str:
    """Name that a StatefulSet gives a checkpoint claim."""
    return f"{CHECKPOINT_VOLUME}-{pod_of(stateful_set, ordinal)}"


def is_pod_of(stateful_set: str, name: str) -> bool:
    """Whether a StatefulSet gives one of its pods this name; a label alone proves nothing."""
    owner, _, ordinal = name.rpartition("-")
    return owner == stateful_set and _ORDINAL.fullmatch(ordinal) is not None


def is_claim_of(stateful_set: str, name: str) -> bool:
    """Whether a StatefulSet gives one of its checkpoint claims this name."""
    volume, _, pod = name.partition("-")
    return volume == CHECKPOINT_VOLUME and is_pod_of(stateful_set, pod)


def worker_account(job: DistributedTrainingJob) -> str:
    """The ServiceAccount that the workers run as."""
    return job.spec.workers.service_account_name or WORKER_ACCOUNT


def shared_labels() -> dict[str, str]:
    """Labels of what the jobs of a namespace share."""
    return {
        "app.kubernetes.io/name": "dtjob",
        "app.kubernetes.io/component": "worker",
        MANAGED_BY_LABEL: FIELD_MANAGER,
        "app.kubernetes.io/part-of": "dtjob",
    }


def selector(job: DistributedTrainingJob) -> dict[str, str]:
    """Labels that only this incarnation's pods and claims have."""
    return {JOB_LABEL: job.metadata.name, JOB_UID_LABEL: derive.job_uid(job)}


def labels(job: DistributedTrainingJob) -> dict[str, str]:
    """Labels of one job's children."""
    return shared_labels() | selector(job)


def owner(job: DistributedTrainingJob) -> Json:
    """Ownership by the job: the garbage collector removes the child with it."""
    return {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "name": job.metadata.name,
        "uid": derive.job_uid(job),
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child_metadata(job: DistributedTrainingJob) -> Json:
    """Metadata of a child that goes with the job."""
    return {
        "name": child_name(job),
        "namespace": namespace(job),
        "labels": labels(job),
        "ownerReferences": [owner(job)],
    }


def is_ours(child: Json, job: DistributedTrainingJob) -> bool:
    """Whether an object of a child's name was made for this incarnation of the job."""
    return _label(child, JOB_UID_LABEL) == job.metadata.uid


def is_made_by_operator(child: Json) -> bool:
    """Whether the operator made an object that the jobs of a namespace share."""
    return _label(child, MANAGED_BY_LABEL) == FIELD_MANAGER


def _label(child: Json, label: str) -> str | None:
    found: str | None = (child["metadata"].get("labels") or {}).get(label)
    return found
