"""A ledger that is gone, and with it the record of what was spent (Rule 11)."""

from __future__ import annotations

from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.read.status_conditions import condition, is_true
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    """Rule 11: what was spent is unknown, so nothing is trained and no ledger is made anew.

    StatefulSets and claim come only after the ledger, so that they too prove that there was one.
    Once it is known to be missing, only the ledger itself proves otherwise.
    """
    observed, job = facts.observed, facts.job
    if facts.ledger is not None or facts.unreadable is not None:
        return None
    sets = (observed.coordinator_set, observed.worker_set)
    own_set = any(of_set is not None and names.is_ours(of_set, job) for of_set in sets)
    running = condition(facts.stored, ConditionType.RUNNING)
    known = running is not None and running["reason"] == Reason.LEDGER_MISSING
    if not (is_true(facts.stored, ConditionType.ACCEPTED) or own_set or observed.claim or known):
        return None
    gone = f"PrivacyLedger {names.child_name(job)} in namespace {names.namespace(job)} is gone"
    if observed.ledgers_undefined:
        return Finding(
            Reason.LEDGER_MISSING,
            f"{gone}, with the CustomResourceDefinition of all ledgers. Nothing runs and nothing "
            "is made anew: install this release's definitions first, and then restore the ledger, "
            "with its status, from the newest backup",
        )
    return Finding(
        Reason.LEDGER_MISSING,
        f"{gone}, and with it the record of what was spent. Nothing runs and nothing is made anew: "
        "restore it, with its status, from the newest backup, or create a new job, which spends "
        "anew",
    )


KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_CHILDREN,
    children=Children.RELEASED,
)
