"""The facts about a job: whether its gang is there, and why its workers refuse."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.support.worlds.world import (
    CHILD,
    NOW,
    PLAN,
    World,
    checkpoint,
    claim,
    pod,
    report,
    running,
    stamp,
    waiting_pod,
)


def test_a_fresh_report_of_the_attempt_outranks_the_clock_of_the_node() -> None:
    """It was put back between the start of the container and that of the attempt."""
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.later(5)
    ahead = pod(0)
    state = ahead["status"]["containerStatuses"][0]["state"]
    state["running"]["startedAt"] = stamp(NOW + timedelta(minutes=5))
    world.see(pods=(ahead, pod(1)), claim=claim())
    world.lease()
    for _ in range(2):
        world.see(report=report(40, heartbeatTime=stamp(world.now)))
        world.settle()
        assert world.status["phase"] == "Running"
        world.later(3600)
    world.settle()
    assert world.status["phase"] != "Running", "its last sign of life is an hour old"


@pytest.mark.parametrize("last_sight", ["ending", "not ready"])
def test_a_coordinator_that_is_deleted_runs_until_it_says_how_it_ends(last_sight: str) -> None:
    world = running()
    world.later(20)
    world.see(report=report(40))
    world.settle()
    ready = {"type": "Ready", "status": "True" if last_sight == "ending" else "False"}
    ending = pod(0, conditions=[ready])
    ending["metadata"]["deletionTimestamp"] = stamp(world.now + timedelta(seconds=60))
    told = list(world.events)
    world.see(pods=(ending, pod(1)))
    world.settle()
    lease = world.observed.ledger and world.observed.ledger["status"]["lease"]
    world.ledger_status(lease={**(lease or {}), "closedAt": 7})
    world.settle()
    assert (world.status["phase"], world.events) == ("Running", told)
    first = {"attempt": 1, "start": stamp(NOW + timedelta(seconds=5)), "end": stamp(world.now)}
    world.ledger_status(attempts=[first | {"reason": "Stopped", "message": ""}])
    (event,) = world.decide().events
    leaves = f"pod {CHILD}-0 is being deleted"
    assert event.message == f"attempt 1 has ended: it was drained; {leaves}"
    world.settle()
    assert world.status["phase"] == "Restarting"


def test_a_coordinator_that_no_kubelet_ends_does_not_run_for_ever() -> None:
    world = running()
    world.later(20)
    ending = pod(0)
    ending["metadata"]["deletionTimestamp"] = stamp(world.now + timedelta(seconds=60))
    world.see(pods=(ending, pod(1)))
    world.later(69)
    world.see(report=report(40, heartbeatTime=stamp(world.now)))
    world.settle()
    assert world.status["phase"] == "Running", "its kubelet may be killing it just now"
    world.later(2)
    world.see(report=report(40, heartbeatTime=stamp(world.now)))
    world.settle()
    assert world.status["phase"] == "Restarting"
    assert "worker 0 is gone or does not answer" in world.condition("Running")["message"]


def test_a_lost_coordinator_is_not_running() -> None:
    """Before the ledger tells of a new attempt: its pod, or its container, is another one."""
    world = running()
    world.later(60)
    world.see(pods=(pod(1),))
    world.settle()
    assert world.status["phase"] == "Restarting"
    world.see(pods=(pod(0, since=world.now), pod(1)))
    world.settle()
    assert world.status["phase"] == "Restarting"
    world.later(10)
    world.lease(attempt=2, charged=20)
    world.settle()
    assert world.status["phase"] == "Running"


def test_a_pod_whose_node_is_silent_trains_on() -> None:
    """The node controller calls it not ready; its ledger and its report tell of its life."""
    unready = pod(0, conditions=[{"type": "Ready", "status": "False"}])
    for sign in ("checkpoint", "report"):
        world = running()
        world.later(300)
        world.see(pods=(unready, pod(1)))
        if sign == "checkpoint":
            world.ledger_status(checkpoint=checkpoint(20, 1, 20, world.now - timedelta(seconds=20)))
        else:
            world.see(report=report(20, heartbeatTime=stamp(world.now - timedelta(seconds=20))))
        world.settle()
        assert world.status["phase"] == "Running"
        world.later(15)
        world.settle()
        assert world.status["phase"] == "Restarting"


def test_a_sign_of_life_of_a_time_to_come_is_none() -> None:
    """The coordinator's clock was ahead: such a sign would be one for days."""
    world = running()
    ahead = world.now + timedelta(days=2)
    world.ledger_status(
        attempts=[{"attempt": 1, "start": stamp(ahead)}], checkpoint=checkpoint(20, 1, 20, ahead)
    )
    world.later(300)
    unready = pod(0, conditions=[{"type": "Ready", "status": "False"}])
    world.see(pods=(unready, pod(1)), report=report(20, heartbeatTime=stamp(ahead)))
    world.settle()
    assert world.status["phase"] == "Restarting"


def test_the_last_words_of_a_supervisor_that_refuses_are_told() -> None:
    world = running()
    last = {"level": "error", "message": "finished", "reason": "PrivacyStateLost", "detail": "why"}
    ended = {"exitCode": 3, "reason": "Error", "message": "starting\n" + json.dumps(last) + "\n"}
    crashed = waiting_pod("CrashLoopBackOff", lastState={"terminated": ended})
    world.later(10)
    world.see(pods=(crashed, pod(1)))
    world.settle()
    assert world.reason("Running") == ("False", "PrivacyStateLost")
    assert world.condition("Running")["message"] == "why"


@pytest.mark.parametrize("state", ["Held", "Waiting"])
def test_a_refusal_in_the_report_is_told(state: str) -> None:
    world = World.of()
    world.see(privacy_plan=PLAN)
    world.settle()
    said = report(0, attempt=0, state=state, reason="LedgerUnreadable", message="why")
    world.see(pods=(pod(0), pod(1)), report=said)
    world.settle()
    assert world.reason("Running") == ("False", "LedgerUnreadable")
