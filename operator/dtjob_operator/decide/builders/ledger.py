"""The PrivacyLedger of a job, made before any pod; of it only order and run policy change."""

from __future__ import annotations

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import LedgerSpec, Order, OrderState, PrivacyPlan
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json


def ledger(job: DistributedTrainingJob, plan: PrivacyPlan) -> Json:
    """Freezes the plan and reserves its T + R draws (Rule 9).

    It has no owner: what was spent outlives the job (Rule 13). There is no status in it, which
    the job's coordinator alone writes. A job that is made suspended is ordered to rest.
    """
    state = OrderState.DRAIN if job.spec.suspend else OrderState.RUN
    return _of(job, derive.ledger_spec(job, plan, state=state))


def followed(job: DistributedTrainingJob, spec: LedgerSpec, order: Order | None) -> Json | None:
    """The ledger with another order and the job's run policy; None where both are as they should.

    Parameters
    ----------
    order
        None: that of the ledger stands.
    """
    policy = PolicyInForce.of(job.spec.run_policy)
    changed = spec.model_copy(update={"run": order or spec.run, "run_policy": policy})
    return None if changed == spec else _of(job, changed)


def _of(job: DistributedTrainingJob, spec: LedgerSpec) -> Json:
    return {
        "apiVersion": kinds.LEDGER.api_version,
        "kind": kinds.LEDGER.name,
        "metadata": {
            "name": names.child_name(job),
            "namespace": names.namespace(job),
            "labels": names.labels(job),
        },
        "spec": spec.to_dict(),
    }
