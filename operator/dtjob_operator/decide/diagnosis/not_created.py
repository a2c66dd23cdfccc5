"""What the API server refuses to create: children of a job, and its workers' pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.diagnosis.rejection_remedies import (
    RejectionEvent,
    general_remedy,
    missing_account,
    remedy,
)
from dtjob_operator.read.events import last_seen, newest
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import WORKER_ACCOUNT
from dtjob_operator.terms.observed import Observed, Rejection


def rejected_children(rejections: Iterable[Rejection]) -> Iterator[Finding]:
    """What the API server says of children that the operator applies."""
    for rejection in rejections:
        how = general_remedy(rejection.message) or (
            "Raise the quota, or repair the policy or webhook that stands in its way"
        )
        yield Finding(
            Reason.PODS_REFUSED,
            f"the API server refuses the {rejection.kind} {rejection.name}: {rejection.message}. "
            f"{how}; it is tried again",
        )


def rejected_pods(
    observed: Observed, job: DistributedTrainingJob, workers: int
) -> Iterator[Finding]:
    """What the StatefulSet controller says of pods that it can't create."""
    there = {pod["metadata"]["name"] for pod in observed.pods}
    event = newest(observed.events, "StatefulSet", names.child_name(job), {"FailedCreate"})
    if event is None or last_seen(event) < _last_success(observed):
        return
    if any(names.pod_name(job, ordinal) not in there for ordinal in range(workers)):
        yield _refused(event.get("message", ""), observed, job)


def _last_success(observed: Observed) -> str:
    """When a pod was last created or an attempt began; a refusal before that was overcome."""
    attempts = ((observed.ledger or {}).get("status") or {}).get("attempts") or []
    times = [
        *(pod["metadata"]["creationTimestamp"] for pod in observed.pods),
        *(attempt["start"] for attempt in attempts),
    ]
    return max(times, default="")


def _refused(message: str, observed: Observed, job: DistributedTrainingJob) -> Finding:
    refusal, where = RejectionEvent.read(message), names.namespace(job)
    # The StatefulSet controller's pauses grow to a quarter of an hour.
    again = (
        "It is tried again after longer and longer pauses, and at once when you delete the "
        f"StatefulSet {names.child_name(job)}, which comes back"
    )
    if account := missing_account(refusal.cause):
        # Of other accounts the operator may know nothing.
        if account == WORKER_ACCOUNT and observed.service_account is not None:
            return Finding(
                Reason.SERVICE_ACCOUNT_MISSING,
                f"the ServiceAccount {account} of the workers did not exist in namespace {where} "
                f"when they were to be made; it exists now. {again}",
            )
        how = (
            f"create it and bind it to ClusterRole {names.WORKER_ROLE} (kubectl create rolebinding "
            f"{account} -n {where} --clusterrole={names.WORKER_ROLE} --serviceaccount={where}:"
            f"{account}), or leave spec.workers.serviceAccountName out of a new job"
            if job.spec.workers.service_account_name
            else "the operator makes it; see its log for what hinders it"
        )
        return Finding(
            Reason.SERVICE_ACCOUNT_MISSING,
            f"the ServiceAccount {account} of the workers does not exist in namespace {where}: "
            f"{how}. {again}",
        )
    what = "claims of the workers" if refusal.is_of_claim else "worker pods"
    return Finding(
        Reason.PODS_REFUSED,
        f"{what} are refused in namespace {where}: {refusal.cause}. {remedy(refusal)}. {again}",
    )
