"""All kinds of obstacles, in the order in which they are looked for and reported.

`docs/reference/status.md` lists their reasons.
"""

from __future__ import annotations

from dtjob_api.reasons import ConditionType
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles import (
    checkpoint_lost,
    claim_terminating,
    crashes,
    ledger_missing,
    ledger_unreadable,
    ledgers_unguarded,
    memory_kills,
    name_conflict,
    node_lost,
    not_created,
    not_started,
    older_shape,
    stale_tokens,
    training_refused,
    unlabelled,
    unscheduled,
)
from dtjob_operator.decide.obstacles.obstacle import Children, Obstacle, ObstacleKind

ORDER: tuple[ObstacleKind, ...] = (
    # What pods must not run without.
    ledger_missing.KIND,
    checkpoint_lost.KIND,
    # What pods can do nothing with.
    stale_tokens.KIND,
    # Why nothing can be made or repaired.
    ledger_unreadable.KIND,
    ledgers_unguarded.KIND,
    name_conflict.KIND,
    older_shape.KIND,
    # Why the workers themselves refuse to train.
    training_refused.OF_THE_VOLUME,
    training_refused.OTHERWISE,
    # Why pods do not come up: what stops every pod comes first.
    claim_terminating.KIND,
    not_created.CHILDREN,
    unlabelled.KIND,
    node_lost.KIND,
    not_created.PODS,
    unscheduled.KIND,
    not_started.KIND,
    not_started.UNMOUNTED,
    crashes.KIND,
    # That a worker was killed, though it runs again.
    memory_kills.KIND,
)


def find(facts: Facts) -> tuple[Obstacle, ...]:
    """The obstacles that are shown: for each condition the first one, and what releases pods."""
    found: list[Obstacle] = []
    shown: set[ConditionType] = set()
    for kind in ORDER:
        if kind.conditions <= shown or (kind.of_a_start and facts.gang_formed):
            continue
        if facts.at_rest and kind.children is Children.KEPT:
            continue  # what hinders pods hinders no job that has none
        if (finding := kind.detect(facts)) is not None:
            found.append(Obstacle(kind, finding))
            shown |= kind.conditions
    return tuple(found)
