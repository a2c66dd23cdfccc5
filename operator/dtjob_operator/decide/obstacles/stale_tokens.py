"""Pods that hold tokens of a ServiceAccount that was deleted and made again.

The API server refuses such tokens (401), and a pod gets no other for most of an hour.
"""

from __future__ import annotations

from dtjob_api.model import timestamp
from dtjob_api.reasons import Reason
from dtjob_api.wire.worker_report import WorkerState
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, Children, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    """No pod can be created before its account, so that a new one never counts.

    Where the API server's clock was put back new pods seem older for a while: it is waited until
    no time lies in the future, and a gang that says that it trains is left alone. Where its token
    is refused it says otherwise within half a minute.
    """
    account = facts.observed.service_account
    if facts.job.spec.workers.service_account_name or account is None:
        return None
    if facts.report is not None and facts.report.state is WorkerState.RUNNING:
        return None
    since = account["metadata"].get("creationTimestamp", "")
    pods = [p for p in facts.observed.pods if p["metadata"]["creationTimestamp"] < since]
    if since > timestamp(facts.now) or not pods:
        return None
    name, namespace = account["metadata"]["name"], names.namespace(facts.job)
    return Finding(
        Reason.SERVICE_ACCOUNT_REPLACED,
        f"ServiceAccount {name} in namespace {namespace} was deleted, and made again at {since}. "
        f"The API server refuses the tokens that older pods hold ({len(pods)}): all are replaced, "
        "and training goes on from the newest checkpoint. Nothing has to be done",
    )


KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_PODS,
    children=Children.RELEASED,
)
