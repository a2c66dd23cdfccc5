"""Which objects of a child's name are the job's own; what is another's is left alone."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.builders.role_binding import role_binding
from dtjob_operator.decide.child_kinds import CHILD_KINDS, uses_our_account
from dtjob_operator.decide.drift import has_drifted
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.observed import Observed


def conflict(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """The first object that has the name of a child and is not this job's."""
    for child in CHILD_KINDS:
        stored = child.stored(observed)
        if stored is None or child.is_shared or not child.asked_for(job):
            continue
        if child.is_own(stored, job):
            continue
        mark, how = "its controller's UID", "delete it"
        if child.kind is kinds.LEDGER:
            # It may be the only record of what that job has spent.
            mark = "its spec.jobUID"
            how = "keep a copy (kubectl get privacyledgers -o yaml), then delete it"
        return Finding(
            Reason.NAME_CONFLICT,
            f"{child.kind.name} {stored['metadata']['name']} in namespace {names.namespace(job)} "
            f"is not this job's ({mark} is not {job.metadata.uid}) and is left alone: {how}, and "
            "the job goes on",
        )
    return _binding_conflict(observed, job)


def _binding_conflict(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """A binding that a platform team has prepared is used if it grants what ours would.

    It may bind others too; nothing is applied to it, so they keep what they have.
    """
    binding = observed.role_binding
    if not uses_our_account(job) or binding is None:
        return None
    if names.is_made_by_operator(binding):
        return None
    wanted = role_binding(names.namespace(job))
    (subject,) = wanted["subjects"]
    bound = any(not has_drifted(each, subject) for each in binding.get("subjects") or [])
    if bound and not has_drifted(binding["roleRef"], wanted["roleRef"]):
        return None
    return Finding(
        Reason.NAME_CONFLICT,
        f"RoleBinding {kinds.WORKER_ACCOUNT} in namespace {names.namespace(job)} is not the "
        f"operator's and does not bind ServiceAccount {kinds.WORKER_ACCOUNT} to ClusterRole "
        f"{names.WORKER_ROLE}: correct or delete it, or name an account of your own in "
        "spec.workers.serviceAccountName",
    )


KIND = ObstacleKind(
    detect=lambda facts: conflict(facts.observed, facts.job),
    conditions=OF_CHILDREN,
    children=Children.LEFT,
)
