"""Whether a job can be run as it is written; what can't is refused once and for all."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dtjob_accounting.errors import PlanError
from dtjob_api.job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator import names
from dtjob_operator.finding import Finding
from dtjob_operator.observed import Observed


def refusal(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """Why a job without a ledger will never get one.

    The fields concerned never change after creation, so that the refusal is final.
    """
    for mount in job.spec.workers.template.volume_mounts:
        path = mount.mount_path.rstrip("/") or "/"
        if path == "/" or any(_overlaps(path, own) for own in names.OWN_MOUNTS):
            return Finding(
                Reason.INVALID_SPEC,
                f"spec.workers.template.volumeMounts: {mount.mount_path} is the operator's own "
                f"({', '.join(names.OWN_MOUNTS)}): mount volume {mount.name} elsewhere, such as "
                "/mnt, in a new job",
            )
    if isinstance(observed.privacy_plan, PlanError):
        return Finding(
            Reason.PRIVACY_IMPOSSIBLE,
            f"{observed.privacy_plan}. The field never changes: correct it in a new job",
        )
    return None


def _overlaps(path: str, own: str) -> bool:
    return path == own or path.startswith(f"{own}/") or own.startswith(f"{path}/")


def unreadable(error: ValidationError) -> str:
    """What a stored job holds that this version of the operator can't read."""
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return (
        f"{where}: {first['msg']}. This operator can't read the job, though the API server took "
        "it: bring operator and CustomResourceDefinitions to one version, or correct the field"
    )
