"""What the API server refuses to create: children of a job, and its workers' pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_api.wire.positions import Role, positions
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, ObstacleKind
from dtjob_operator.decide.obstacles.remedies.rejection_remedies import (
    RejectionEvent,
    missing_account,
    remedy,
    remedy_of_child,
)
from dtjob_operator.read.events import last_seen, newest
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import WORKER_ACCOUNT, Json
from dtjob_operator.terms.observed import Observed, Rejection


def rejected_children(rejections: Iterable[Rejection]) -> Iterator[Finding]:
    """What the API server says of children that the operator applies."""
    for rejection in rejections:
        how = remedy_of_child(rejection.message)
        yield Finding(
            Reason.PODS_REFUSED,
            f"the API server refuses the {rejection.kind} {rejection.name}: "
            f"{rejection.message.rstrip('.')}. {how}",
        )


def rejected_pods(
    observed: Observed, job: DistributedTrainingJob, workers: int
) -> Iterator[Finding]:
    """What the StatefulSet controller says of pods that it can't create.

    Of each StatefulSet by itself: that the other's pods were created overcomes no refusal.
    """
    for role in Role:
        of_set = names.set_name(job, role)
        event = newest(observed.events, "StatefulSet", of_set, {"FailedCreate"})
        if event is None:
            continue
        wanted = {names.pod_name(job, position) for position in positions(role, workers)}
        pods = [pod for pod in observed.pods if pod["metadata"]["name"] in wanted]
        if last_seen(event) < _last_success(observed, pods):
            continue
        if len(pods) < len(wanted):
            yield _refused(event.get("message", ""), of_set, observed, job)


def _last_success(observed: Observed, pods: Iterable[Json]) -> str:
    """When a pod was last created or an attempt began; a refusal before that was overcome."""
    attempts = ((observed.ledger or {}).get("status") or {}).get("attempts") or []
    times = [
        *(pod["metadata"]["creationTimestamp"] for pod in pods),
        *(attempt["start"] for attempt in attempts),
    ]
    return max(times, default="")


def _refused(
    message: str, stateful_set: str, observed: Observed, job: DistributedTrainingJob
) -> Finding:
    refusal, where = RejectionEvent.read(message), names.namespace(job)
    # The StatefulSet controller's pauses grow to a quarter of an hour.
    again = (
        "It is tried again after longer and longer pauses, and at once when you delete the "
        f"StatefulSet {stateful_set}, which comes back"
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
    what = "the checkpoint claim is" if refusal.is_of_claim else "worker pods are"
    return Finding(
        Reason.PODS_REFUSED,
        f"{what} refused in namespace {where}: {refusal.cause}. {remedy(refusal)}. {again}",
    )


CHILDREN = ObstacleKind(
    detect=lambda facts: next(rejected_children(facts.observed.rejections), None),
    conditions=OF_PODS,
    of_a_start=True,
)
PODS = ObstacleKind(
    detect=lambda facts: next(rejected_pods(facts.observed, facts.job, facts.workers), None),
    conditions=OF_PODS,
    of_a_start=True,
)
