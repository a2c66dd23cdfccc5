"""The PrivacyLedger of a job, made once and before any pod."""

from __future__ import annotations

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json


def ledger(job: DistributedTrainingJob, plan: PrivacyPlan) -> Json:
    """Freezes the plan and reserves its T + R draws (Rule 9).

    It has no owner: what was spent outlives the job (Rule 13). There is no status in it, which
    the job's coordinator alone writes.
    """
    return {
        "apiVersion": kinds.LEDGER.api_version,
        "kind": kinds.LEDGER.name,
        "metadata": {
            "name": names.child_name(job),
            "namespace": names.namespace(job),
            "labels": names.labels(job),
        },
        "spec": derive.ledger_spec(job, plan).to_dict(),
    }
