"""Which of a job's children to apply now, missing or drifted ones, and which to delete."""

from __future__ import annotations

from datetime import datetime

from dtjob_accounting.errors import PlanError
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.model import timestamp
from dtjob_api.wire.positions import Role, positions
from dtjob_operator.decide.builders.disruption_budget import disruption_budget
from dtjob_operator.decide.builders.ledger import ledger
from dtjob_operator.decide.builders.role_binding import role_binding
from dtjob_operator.decide.builders.service import service
from dtjob_operator.decide.builders.service_account import service_account
from dtjob_operator.decide.builders.stateful_set import stateful_set
from dtjob_operator.decide.drift import has_drifted
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.obstacles.older_shape import has_older_shape
from dtjob_operator.decide.situation import Situation
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.decision import ObjectRef
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed


def applies(observed: Observed, situation: Situation, now: datetime) -> tuple[Json, ...]:
    """Desired objects that are missing or differ, in the order in which they are needed.

    StatefulSets follow only on an observed ledger, so that no pod ever runs without one and one of
    them without a ledger proves a loss. After the outcome nothing is made any more; both go to 0
    pods once the stored status says so, and stay there.
    """
    job = situation.job
    if situation.finished:
        return _scaled_down(observed, situation)
    if situation.outcome is not None:
        return ()
    if situation.children is Children.RELEASED:
        return _scaled_down(observed, situation)
    if situation.children is Children.LEFT:
        return ()
    wanted: list[Json] = []
    if situation.ledger is None:
        if observed.privacy_plan is None or isinstance(observed.privacy_plan, PlanError):
            return ()
        wanted += [*_prerequisites(observed, situation), ledger(job, observed.privacy_plan)]
    else:
        wanted += _prerequisites(observed, situation)
        stale = _have_stale_tokens(observed, job, now)
        for role in Role:
            size, stored = len(positions(role, situation.workers)), observed.stateful_set(role)
            if size or stored is not None:
                desired = _desired_stateful_set(observed, job, role, 0 if stale else size)
                wanted += _if_changed(desired, stored)
    return tuple(wanted)


def _have_stale_tokens(observed: Observed, job: DistributedTrainingJob, now: datetime) -> bool:
    """Whether pods hold tokens of an account that was deleted and recreated.

    The API server refuses such tokens (401), and a pod gets no other for most of an hour: it is
    replaced. No pod can be created before its account, so a new one never counts; but where the API
    server's clock was put back, new pods would seem older for days, and be removed again and again.
    """
    account = observed.service_account
    if job.spec.workers.service_account_name or account is None:
        return False
    since = account["metadata"].get("creationTimestamp", "")
    if since > timestamp(now):
        return False
    return any(pod["metadata"]["creationTimestamp"] < since for pod in observed.pods)


def deletes(observed: Observed, situation: Situation) -> tuple[ObjectRef, ...]:
    """Children of ours that are in the way of what is wanted now."""
    job = situation.job
    if situation.finished or situation.outcome is not None or situation.ledger is None:
        return ()
    superfluous = {
        kinds.ROLE_BINDING: _binding_to_another_role(observed, job),
        kinds.NETWORK_POLICY: _policy_not_asked_for(observed, situation),
    }
    return tuple(
        ObjectRef(
            api_version=kind.api_version,
            kind=kind.name,
            namespace=names.namespace(job),
            name=child["metadata"]["name"],
            uid=child["metadata"]["uid"],
        )
        for kind, child in superfluous.items()
        if child is not None and not _is_being_deleted(child)
    )


def _binding_to_another_role(observed: Observed, job: DistributedTrainingJob) -> Json | None:
    """Our own RoleBinding if it names another role: its roleRef can't be changed in place."""
    binding = observed.role_binding
    if job.spec.workers.service_account_name or binding is None:
        return None
    wanted = role_binding(names.namespace(job))
    if not names.is_made_by_operator(binding) or binding["roleRef"] == wanted["roleRef"]:
        return None
    return binding


def _policy_not_asked_for(observed: Observed, situation: Situation) -> Json | None:
    """Our own NetworkPolicy if the job asks for none any more."""
    policy = observed.network_policy
    if situation.network_policy is not None or policy is None:
        return None
    return policy if names.is_ours(policy, situation.job) else None


def _prerequisites(observed: Observed, situation: Situation) -> list[Json]:
    """Whatever pods need: account and rights, unless the job names its own, and the network."""
    wanted: list[Json] = []
    job = situation.job
    namespace = names.namespace(job)
    if not job.spec.workers.service_account_name:
        account, binding = observed.service_account, observed.role_binding
        # What a platform team has prepared is used as it is.
        if account is None or names.is_made_by_operator(account):
            wanted += _if_changed(service_account(namespace), account)
        if binding is None or names.is_made_by_operator(binding):
            desired = role_binding(namespace)
            if binding is None or binding["roleRef"] == desired["roleRef"]:
                wanted += _if_changed(desired, binding)
    wanted += _if_changed(service(job), observed.service)
    if situation.network_policy is not None:
        wanted += _if_changed(situation.network_policy, observed.network_policy)
    wanted += _if_changed(disruption_budget(job), observed.disruption_budget)
    return wanted


def _if_changed(wanted: Json, stored: Json | None) -> list[Json]:
    """`wanted`, with the UID of what it changes, if it has to be applied."""
    if stored is None:
        return [wanted]
    if _is_being_deleted(stored) or not has_drifted(stored, wanted):
        return []
    uid = stored["metadata"]["uid"]
    return [wanted | {"metadata": wanted["metadata"] | {"uid": uid}}]


def _is_being_deleted(stored: Json) -> bool:
    """Whether an object is on its way out; it is recreated only when it is gone."""
    return "deletionTimestamp" in stored["metadata"]


def _scaled_down(observed: Observed, situation: Situation) -> tuple[Json, ...]:
    """The job's own StatefulSets at 0 pods; nothing is made, and nothing else is repaired."""
    job, wanted = situation.job, []
    for role in Role:
        stored = observed.stateful_set(role)
        if stored is None or not names.is_ours(stored, job) or has_older_shape(stored):
            continue
        if stored["spec"].get("replicas") != 0:
            wanted += _if_changed(_desired_stateful_set(observed, job, role, 0), stored)
    return tuple(wanted)


def _desired_stateful_set(
    observed: Observed, job: DistributedTrainingJob, role: Role, replicas: int
) -> Json:
    """The desired StatefulSet of a role, without what must not change while its pods run.

    A pod template that another version of the operator made is replaced only at 0 pods; one of
    this version is repaired at any time. Claim templates can't be changed at all.
    """
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
