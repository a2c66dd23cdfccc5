"""What becomes of a job's children where several things are in its way."""

from __future__ import annotations

import itertools

import pytest

from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.obstacles.obstacle import (
    Children,
    Obstacle,
    ObstacleKind,
    children,
    obstacle_to,
)
from dtjob_operator.terms.decision import Finding

RUNNING, FRESH = ConditionType.RUNNING, ConditionType.CHECKPOINT_FRESH


def obstacle(then: Children, message: str = "", *shown: ConditionType) -> Obstacle:
    finding = Finding(Reason.CHECKPOINT_LOST, message)
    kind = ObstacleKind(detect=lambda _: finding, conditions=frozenset(shown), children=then)
    return Obstacle(kind, finding)


@pytest.mark.rule(11)
@pytest.mark.parametrize("found", list(itertools.permutations(Children, 2)))
def test_what_releases_pods_is_done_whatever_else_is_found(
    found: tuple[Children, Children],
) -> None:
    """A lost ledger or volume lets no pod run on because another trouble would leave it."""
    first = [Children.RELEASED, Children.LEFT, Children.KEPT]
    assert children(map(obstacle, found)) is min(found, key=first.index)


def test_without_an_obstacle_children_are_kept() -> None:
    assert children(()) is Children.KEPT


def test_a_condition_has_the_first_obstacle_that_is_shown_in_it() -> None:
    obstacles = (
        obstacle(Children.KEPT, "a", FRESH),
        obstacle(Children.KEPT, "b", RUNNING),
        obstacle(Children.KEPT, "c", RUNNING, FRESH),
    )
    assert [getattr(obstacle_to(each, obstacles), "message", None) for each in ConditionType] == [
        {RUNNING: "b", FRESH: "a"}.get(each) for each in ConditionType
    ]
