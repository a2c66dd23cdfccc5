"""Worker pods that have lost a label by which StatefulSet and NetworkPolicy know them."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.facts import is_restricted
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import JOB_UID_LABEL
from dtjob_operator.terms.observed import Observed


def unlabelled(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """The first of them, if there are any."""
    if not observed.unlabelled:
        return None
    first, missing = next(iter(observed.unlabelled.items()))
    others = len(observed.unlabelled) - 1
    more = f" (and {others} more)" if others else ""
    lost = ", ".join(f"{label}={value}" for label, value in missing.items())
    effects = ["its StatefulSet no longer knows it, and can't put a worker in its place"]
    if is_restricted(job) and JOB_UID_LABEL in missing:
        effects.append(
            "the job's NetworkPolicy does not hold for it, so that whatever reaches it may talk to "
            "it, while the other workers may not"
        )
    if first == names.pod_name(job, 0) and JOB_UID_LABEL in missing:
        effects.append("its report is not read, so that figures stand still")
    return Finding(
        Reason.WORKER_UNLABELLED,
        f"pod {first} in namespace {names.namespace(job)}{more} is a worker by its name but lacks "
        f"{lost}: {'; '.join(effects)}. Put the label back (kubectl label pod {first} -n "
        f"{names.namespace(job)} --overwrite {lost.replace(', ', ' ')}), or delete the pod, and a "
        "new one takes its place",
    )


def outside_the_policy(observed: Observed, job: DistributedTrainingJob) -> Finding | None:
    """That a worker is not under the NetworkPolicy, which goes by the job's UID."""
    if any(JOB_UID_LABEL in missing for missing in observed.unlabelled.values()):
        return unlabelled(observed, job)
    return None


# A gang that has formed trains on; it is shown all the same.
KIND = ObstacleKind(
    detect=lambda facts: unlabelled(facts.observed, facts.job),
    conditions=OF_PODS,
)
