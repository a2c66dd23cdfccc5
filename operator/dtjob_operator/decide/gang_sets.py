"""A job's StatefulSets as they should be beside those that are there."""

from __future__ import annotations

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
