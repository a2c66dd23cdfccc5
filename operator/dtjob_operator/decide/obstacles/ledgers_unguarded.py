"""An API server that would let ledgers be lowered."""

from __future__ import annotations

from dtjob_api.reasons import Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_CHILDREN, Children, ObstacleKind
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    if facts.observed.unguarded is None:
        return None
    return Finding(
        Reason.LEDGERS_UNGUARDED,
        f"nothing is started while ledgers are not protected: {facts.observed.unguarded}. Pods "
        "that run are left running",
    )


KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_CHILDREN,
    children=Children.LEFT,
)
