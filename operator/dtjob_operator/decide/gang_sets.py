"""A job's StatefulSets as they should be beside those that are there."""

from __future__ import annotations

from dtjob_api.model import timestamp
from dtjob_api.wire.positions import Role
from dtjob_operator.decide.builders.stateful_set import stateful_set
from dtjob_operator.decide.facts import Facts
from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import Json


def desired_set(facts: Facts, role: Role, replicas: int) -> Json:
    """The desired StatefulSet of a role, without what must not change while its pods run.

    A pod template that another version of the operator made is replaced only at 0 pods; one of
    this version is repaired at any time. Claim templates can't be changed at all.
    """
    job, observed = facts.job, facts.observed
    wanted, stored = stateful_set(job, role, replicas), observed.stateful_set(role)
    if stored is None:
        return wanted
    made_by = (stored["metadata"].get("annotations") or {}).get(names.TEMPLATE_DIGEST)
    has_pods = stored["spec"].get("replicas") != 0 or any(
        names.role_of(job, pod) is role for pod in observed.pods
    )
    if made_by != wanted["metadata"]["annotations"][names.TEMPLATE_DIGEST] and has_pods:
        annotations = {names.TEMPLATE_DIGEST: made_by} if made_by else {}
        wanted["metadata"]["annotations"] = annotations
        wanted["spec"]["template"] = stored["spec"]["template"]
    claims = stored["spec"].get("volumeClaimTemplates")
    if claims is not None:
        wanted["spec"]["volumeClaimTemplates"] = claims
    return wanted


def have_stale_tokens(facts: Facts) -> bool:
    """Whether pods hold tokens of an account that was deleted and recreated.

    The API server refuses such tokens (401), and a pod gets no other for most of an hour: it is
    replaced. No pod can be created before its account, so a new one never counts; but where the API
    server's clock was put back, new pods would seem older for days, and be removed again and again.
    """
    account = facts.observed.service_account
    if facts.job.spec.workers.service_account_name or account is None:
        return False
    since = account["metadata"].get("creationTimestamp", "")
    if since > timestamp(facts.now):
        return False
    return any(pod["metadata"]["creationTimestamp"] < since for pod in facts.observed.pods)
