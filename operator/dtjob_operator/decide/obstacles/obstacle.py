"""What an obstacle is: why a job does not train, and what becomes of its pods meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from dtjob_api.reasons import ConditionType
from dtjob_operator.decide.facts import Facts
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.settings import Settings


class Children(Enum):
    """What becomes of a job's children while there is an obstacle; the first outranks the next."""

    RELEASED = "its StatefulSets go to 0 pods, and nothing is made"
    LEFT = "nothing is made or repaired, and pods that run are left running"
    KEPT = "they are made and repaired as ever"


#: Of what keeps pods from coming up.
OF_PODS = frozenset({ConditionType.RESOURCES_READY, ConditionType.RUNNING})
#: Of what keeps children from being made or repaired.
OF_CHILDREN = OF_PODS | {ConditionType.NETWORK_RESTRICTED}


def telemetry_pause(settings: Settings) -> float:
    """As often as figures are written: a watch reports what changes, or a person mends it."""
    return settings.telemetry_seconds


def probe_pause(settings: Settings) -> float:
    """As often as a probe asks workers that start."""
    return settings.probe_seconds


@dataclass(frozen=True)
class ObstacleKind:
    """A kind of obstacle: an entry of `order.ORDER`.

    Attributes
    ----------
    detect
        Why the job does not train, if this is what hinders it.
    conditions
        Those that it is shown in, if no kind before it is.
    of_a_start
        It is looked for only while no gang has formed.
    retry_after
        Seconds to the next look where no watch reports anything.
    """

    detect: Callable[[Facts], Finding | None]
    conditions: frozenset[ConditionType]
    children: Children = Children.KEPT
    of_a_start: bool = False
    retry_after: Callable[[Settings], float] = telemetry_pause


def of_pods(find: Callable[[Facts, Json], Iterable[Finding]]) -> ObstacleKind:
    """Of what one pod shows, the first one first."""

    def detect(facts: Facts) -> Finding | None:
        return next((found for pod in facts.settled_pods for found in find(facts, pod)), None)

    return ObstacleKind(detect=detect, conditions=OF_PODS, of_a_start=True)


@dataclass(frozen=True)
class Obstacle:
    """One that is there."""

    kind: ObstacleKind
    finding: Finding


def children(obstacles: Iterable[Obstacle]) -> Children:
    """What becomes of a job's children where there are these."""
    found = {obstacle.kind.children for obstacle in obstacles}
    return next((each for each in Children if each in found), Children.KEPT)


def obstacle_to(condition: ConditionType, obstacles: Iterable[Obstacle]) -> Finding | None:
    """The first that a condition has for its reason; None where there is none."""
    return next((each.finding for each in obstacles if condition in each.kind.conditions), None)
