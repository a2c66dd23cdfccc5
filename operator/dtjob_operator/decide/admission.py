"""Whether a job can be run as it is written; what can't is refused once and for all."""

from __future__ import annotations

from pydantic import ValidationError

from dtjob_accounting.errors import PlanError
from dtjob_api.job.arguments import too_large
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.model import first_error
from dtjob_api.reasons import Reason
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.observed import Observed


def refusal(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """Why a job without a ledger will never get one.

    The fields concerned never change after creation, so that the refusal is final.
    """
    if (why := too_large(job.spec.training.args)) is not None:
        return Finding(
            Reason.ARGS_TOO_LARGE, f"{why}. The field never changes: correct it in a new job"
        )
    if isinstance(observed.privacy_plan, PlanError):
        return Finding(
            Reason.PRIVACY_IMPOSSIBLE,
            f"{observed.privacy_plan}. The field never changes: correct it in a new job",
        )
    return None


def unreadable(error: ValidationError) -> str:
    """What a stored job holds that this version of the operator can't read."""
    return (
        f"{first_error(error)}. This operator can't read the job, though the API server took "
        "it: bring operator and CustomResourceDefinitions to one version, or correct the field"
    )
