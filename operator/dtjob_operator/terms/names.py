"""Names, labels and addresses of a job's children: what builders and observers agree on."""

from __future__ import annotations

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.model import API_GROUP
from dtjob_api.wire import positions
from dtjob_api.wire.positions import Role
from dtjob_operator.terms.kinds import JOB_LABEL, JOB_UID_LABEL, ROLE_LABEL, WORKER_ACCOUNT, Json

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


def namespace(job: DistributedTrainingJob) -> str:
    """The job's namespace."""
    return job.metadata.namespace or "default"


def child_name(job: DistributedTrainingJob) -> str:
    """Name of what is the job's alone, its ledger and Service: another for each run."""
    return derive.child_name(job.metadata.name, derive.job_uid(job), job.spec.rerun)


def set_name(job: DistributedTrainingJob, role: Role) -> str:
    """Name of a role's StatefulSet."""
    return positions.set_name(child_name(job), role)


def pod_name(job: DistributedTrainingJob, position: int) -> str:
    """Name of a worker's pod."""
    return positions.pod_name(child_name(job), position)


def claim_name(job: DistributedTrainingJob) -> str:
    """Name of the checkpoint claim, which holds the job's state."""
    return claim_of(child_name(job))


def claim_of(child: str) -> str:
    """Name that the coordinator's StatefulSet gives the checkpoint claim."""
    return f"{CHECKPOINT_VOLUME}-{positions.pod_name(child, 0)}"


def child_of_any_run(job_name: str, pod: Json) -> str | None:
    """Name of the children of which a pod may be one, of whichever run; None: of none."""
    of_set, _, _ = pod["metadata"]["name"].rpartition("-")
    child = positions.child_of_set(of_set)
    is_one = child.rpartition("-")[0] == job_name and len(child) == len(job_name) + 9
    return child if is_one else None


def position_of(child: str, pod: Json) -> int | None:
    """Position of a pod that carries the job's label, which alone proves nothing; None: no worker.

    Its name must be a worker's, and its controller the StatefulSet of that role. Of a set that was
    deleted and made anew, whose pods still end, only the name is the same; and a pod that claims an
    owner which is not there is soon removed. One without a controller is about to be adopted.
    """
    metadata = pod["metadata"]
    position = positions.position_of(child, metadata["name"])
    controller = controller_of(pod)
    if position is None or controller is None:
        return position
    own = ("StatefulSet", positions.set_name(child, positions.role_at(position)))
    return position if (controller["kind"], controller["name"]) == own else None


def role_of(job: DistributedTrainingJob, pod: Json) -> Role | None:
    """What a pod is in the job's gang; None: no worker."""
    position = position_of(child_name(job), pod)
    return positions.role_at(position) if position is not None else None


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
    return _selector(job.metadata.name, derive.job_uid(job))


def _selector(job_name: str, uid: str) -> dict[str, str]:
    return {JOB_LABEL: job_name, JOB_UID_LABEL: uid}


def missing_labels(job_name: str, uid: str, position: int, pod: Json) -> dict[str, str]:
    """The labels of a worker's pod that it lacks: without one its StatefulSet knows it no more."""
    wanted = of_role(positions.role_at(position), _selector(job_name, uid))
    labels = pod["metadata"].get("labels") or {}
    return {label: value for label, value in wanted.items() if labels.get(label) != value}


def of_role(role: Role, labels: dict[str, str]) -> dict[str, str]:
    """The labels, of one role alone: without it two StatefulSets would fight for their pods."""
    return labels | {ROLE_LABEL: str(role)}


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
    """Whether an object of a child's name belongs to this incarnation of the job.

    Its controller says so; its label, which is sooner lost, only where it has none.
    """
    controller = controller_of(child)
    if controller is not None:
        return controller.get("uid") == job.metadata.uid
    return _label(child, JOB_UID_LABEL) == job.metadata.uid


def is_own_ledger(ledger: Json, job: DistributedTrainingJob) -> bool:
    """Whether a ledger of the job's name is of this incarnation; no owner stands in a ledger."""
    return (ledger.get("spec") or {}).get("jobUID") == job.metadata.uid


def controller_of(child: Json) -> Json | None:
    """The owner that manages an object, if it has one."""
    owners = child["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_made_by_operator(child: Json) -> bool:
    """Whether the operator made an object that the jobs of a namespace share."""
    return _label(child, MANAGED_BY_LABEL) == FIELD_MANAGER


def _label(child: Json, label: str) -> str | None:
    found: str | None = (child["metadata"].get("labels") or {}).get(label)
    return found
