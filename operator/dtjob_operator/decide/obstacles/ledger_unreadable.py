"""A ledger that another version of dtjob wrote."""

from __future__ import annotations

from dtjob_api.model import first_error
from dtjob_api.reasons import Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    if facts.unreadable is None:
        return None
    return Finding(
        Reason.LEDGER_UNREADABLE,
        f"PrivacyLedger {names.child_name(facts.job)} can't be read: "
        f"{first_error(facts.unreadable)}. Nothing is changed, pods that run are left running, and "
        "the phase is that of before: run the operator's version that wrote it",
    )


KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_CHILDREN,
    children=Children.LEFT,
)
