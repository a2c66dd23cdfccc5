"""What the API server refuses to create: our children, the StatefulSet controller's pods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dtjob_api.job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator import names, wording
from dtjob_operator.events import last_seen, newest
from dtjob_operator.finding import Finding
from dtjob_operator.kinds import WORKER_ACCOUNT
from dtjob_operator.observed import Observed, Rejection

_MISSING_ACCOUNT = re.compile(r"serviceaccounts? \"(?P<name>[^\"]+)\" not found", re.IGNORECASE)
_LIMIT_RANGE = re.compile(r"(?:(?:minimum|maximum) \S+ usage|limit to request ratio) per \w+ is")


def refused_children(rejections: Iterable[Rejection]) -> Iterator[Finding]:
    """What the API server says about children that the operator applies."""
    for rejection in rejections:
        yield Finding(
            Reason.PODS_REFUSED,
            f"the API server refuses the {rejection.kind} {rejection.name}: {rejection.message}. "
            "Raise the quota, or repair the policy or webhook that stands in its way; it is tried "
            "again",
        )


def refused_pods(
    observed: Observed, job: DistributedTrainingJob, workers: int
) -> Iterator[Finding]:
    """What the StatefulSet controller says about pods that it can't create."""
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
    cause, where = wording.refusal(message), names.namespace(job)
    # The StatefulSet controller's pauses grow to a quarter of an hour.
    again = (
        "It is tried again after longer and longer pauses, and at once when you delete the "
        f"StatefulSet {names.child_name(job)}, which comes back"
    )
    if missing := _MISSING_ACCOUNT.search(cause):
        account = missing["name"]
        # Of other accounts the operator may know nothing.
        if account == WORKER_ACCOUNT and observed.service_account is not None:
            return Finding(
                Reason.SERVICE_ACCOUNT_MISSING,
                f"the ServiceAccount {account} of the workers did not exist in namespace {where} "
                f"when they were to be made; it exists now. {again}",
            )
        remedy = (
            f"create it and bind it to ClusterRole {names.WORKER_ROLE} (kubectl create rolebinding "
            f"{account} -n {where} --clusterrole={names.WORKER_ROLE} --serviceaccount={where}:"
            f"{account}), or leave spec.workers.serviceAccountName out of a new job"
            if job.spec.workers.service_account_name
            else "the operator makes it; see its log for what hinders it"
        )
        return Finding(
            Reason.SERVICE_ACCOUNT_MISSING,
            f"the ServiceAccount {account} of the workers does not exist in namespace {where}: "
            f"{remedy}. {again}",
        )
    what = "claims of the workers" if _is_claim(cause) else "worker pods"
    return Finding(
        Reason.PODS_REFUSED,
        f"{what} are refused in namespace {where}: {cause}. {_remedy(cause)}. {again}",
    )


def _is_claim(cause: str) -> bool:
    return "persistentvolumeclaim" in cause.lower()


def _remedy(cause: str) -> str:
    field = "spec.storage.checkpoints.size" if _is_claim(cause) else "spec.workers.resources"
    if "exceeded quota" in cause:
        return f"Raise the ResourceQuota, or lower spec.workers.replicas or {field} in a new job"
    if "failed quota" in cause:
        return f"Say in {field} of a new job what the ResourceQuota asks for"
    if _LIMIT_RANGE.search(cause):
        return f"Change the LimitRange, or {field} in a new job"
    if "violates PodSecurity" in cause:
        return (
            "Worker pods meet the level restricted; what spec.workers.template adds does not, or "
            "a policy of the cluster asks for more"
        )
    return "Change the admission rule that refuses it, or what it asks for in a new job"
