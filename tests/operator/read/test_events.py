"""When Events happened, whatever the clock of who recorded them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from dtjob_operator.kube.trimmed import trimmed
from dtjob_operator.read.events import by_child, last_seen
from dtjob_operator.terms import kinds
from tests.support.worlds.world import CHILD, NOW, PLAN, World, digits, pod, stamp

AHEAD = timedelta(hours=2)


def recorded(
    made: datetime, *, first: datetime, last: datetime, message: str = "", modern: bool = False
) -> dict[str, Any]:
    """An Event about the job's StatefulSet, as it is held.

    Parameters
    ----------
    made
        By the API server's clock.
    first, last
        By the clock of who recorded it.
    modern
        In the form of events.k8s.io.
    """
    times: dict[str, Any] = {"firstTimestamp": stamp(first), "lastTimestamp": stamp(last)}
    if modern:
        times = {"eventTime": stamp(first), "series": {"lastObservedTime": stamp(last)}}
    event = {
        "metadata": {"creationTimestamp": stamp(made)},
        "involvedObject": {"kind": "StatefulSet", "name": CHILD},
        "reason": "FailedCreate",
        "message": message,
    }
    return trimmed(event | times, kinds.EVENT)


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (timedelta(0), timedelta(minutes=5)),
        (timedelta(seconds=59), timedelta(minutes=5, seconds=59)),
        (AHEAD, timedelta(minutes=5)),
        # One that had expired and was made anew, or a clock that is behind.
        (-AHEAD, timedelta(0)),
    ],
)
def test_a_clock_that_is_ahead_makes_no_event_newer(
    modern: bool, first: timedelta, seen: timedelta
) -> None:
    begun = NOW + first
    event = recorded(NOW, first=begun, last=begun + timedelta(minutes=5), modern=modern)
    assert datetime.fromisoformat(last_seen(event)) == NOW + seen


@pytest.mark.parametrize("modern", [False, True])
def test_of_a_clock_that_was_put_right_meanwhile_the_last_time_holds(modern: bool) -> None:
    event = recorded(NOW, first=NOW + AHEAD, last=NOW + timedelta(minutes=5), modern=modern)
    assert datetime.fromisoformat(last_seen(event)) == NOW + timedelta(minutes=5)


def test_what_followed_a_refusal_of_a_clock_that_was_ahead_has_overcome_it() -> None:
    """Of two refusals the later one is shown, and none once a pod was made."""
    world = World.of(digits(workers={"replicas": 2}), privacy_plan=PLAN)
    world.settle()
    ahead = recorded(NOW, first=NOW + AHEAD, last=NOW + AHEAD, message="the first")
    later = NOW + timedelta(minutes=5)
    follows = recorded(later, first=later, last=later, message="the second")
    world.later(600)
    world.see(events=by_child([ahead, follows])[CHILD])
    world.settle()
    assert world.reason("Running")[1] == "PodsRefused"
    assert "the second" in world.condition("Running")["message"]
    world.see(events=by_child([ahead])[CHILD], pods=(pod(0, since=later),))
    world.settle()
    assert world.reason("Running")[1] != "PodsRefused"
