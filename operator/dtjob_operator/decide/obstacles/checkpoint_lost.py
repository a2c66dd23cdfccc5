"""A checkpoint claim that is gone, of a job that has spent draws (Rule 11)."""

from __future__ import annotations

from dtjob_api.ledger.proven import may_lack_draws, proven_draws
from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import JOB_UID_LABEL


def _detect(facts: Facts) -> Finding | None:
    """Rule 11: without the volume of a job that has spent draws there is no silent restart."""
    job, ledger = facts.job, facts.ledger
    if ledger is None or facts.observed.claim is not None or not facts.may_have_spent:
        return None
    name = names.claim_name(job)
    held = f"{proven_draws(ledger.status.to_dict())} draws"
    then = "the job goes on"
    if may_lack_draws(ledger.status) is not None:
        held = f"at least {held}"
        then = "the job goes on once the ledger is raised too (dtjob ledger restore)"
    return Finding(
        Reason.CHECKPOINT_LOST,
        f"PersistentVolumeClaim {name} in namespace {names.namespace(job)} is gone: it held the "
        f"checkpoints and the journal of {held}. Restore it under this name, with label "
        f"{JOB_UID_LABEL}={job.metadata.uid}, from a snapshot, and {then}; or create "
        "a new job, which spends anew",
    )


KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_CHILDREN | {ConditionType.CHECKPOINT_FRESH},
    children=Children.RELEASED,
)
