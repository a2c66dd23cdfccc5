"""Pods whose node is gone: said with node, time and remedy, and deleted by force when it is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dtjob_operator.terms.decision import Decision
from tests.support.worlds.world import CHILD, NOW, World, pod, running, stamp

Json = dict[str, Any]
SINCE = NOW + timedelta(seconds=30)


def node(status: str = "Unknown", *taints: str) -> Json:
    return {
        "metadata": {"name": "node-1"},
        "spec": {"taints": [{"key": each, "effect": "NoExecute"} for each in taints]},
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "Unknown", "lastTransitionTime": stamp(NOW)},
                {"type": "Ready", "status": status, "lastTransitionTime": stamp(SINCE)},
            ]
        },
    }


def leaving(position: int) -> Json:
    """A pod that was told to go, and is not reported to have gone."""
    found = pod(position)
    found["metadata"]["deletionTimestamp"] = stamp(SINCE + timedelta(seconds=90))
    return found


def lost(found: Json | None, position: int = 1) -> World:
    world = running()
    pods = [pod(0), pod(1)]
    pods[position] = leaving(position)
    world.see(pods=tuple(pods), nodes={f"node-{position}": found})
    return world


def forced(decision: Decision) -> list[str]:
    assert all(each.by_force == (each.kind == "Pod") for each in decision.deletes)
    return [each.name for each in decision.deletes if each.by_force]


def at(world: World, seconds: float) -> Decision:
    """What is decided so many seconds after the node was last heard of."""
    world.now = SINCE + timedelta(seconds=seconds)
    return world.decide()


def test_the_pod_of_a_node_that_does_not_answer_is_deleted_by_force_in_time() -> None:
    world = lost(node())
    assert forced(at(world, 119)) == []
    decision = at(world, 120)
    assert forced(decision) == [f"{CHILD}-w-0"]
    (event,) = (each for each in decision.events if each.reason == "PodEndedByForce")
    assert f"its node node-1 has not answered since {stamp(SINCE)}" in event.message
    assert event.type == "Warning"


def test_how_long_that_is_stands_in_the_run_policy() -> None:
    world = lost(node())
    policy = world.observed.job["spec"]["runPolicy"]
    world.edit(runPolicy=policy | {"nodeLost": {"forceAfterSeconds": 300}})
    assert forced(at(world, 299)) == []
    assert forced(at(world, 300)) == [f"{CHILD}-w-0"]


@pytest.mark.parametrize(
    "found", [None, node("True", "node.kubernetes.io/out-of-service")], ids=["gone", "out"]
)
def test_a_node_that_is_gone_or_out_of_service_is_not_waited_for(found: Json | None) -> None:
    assert forced(at(lost(found), 1)) == [f"{CHILD}-w-0"]


@pytest.mark.parametrize("status", ["True", "False"])
def test_a_kubelet_that_answers_ends_its_pods_itself(status: str) -> None:
    assert forced(at(lost(node(status, "node.kubernetes.io/unreachable")), 10**6)) == []


def test_a_node_that_is_not_known_proves_nothing() -> None:
    """As for an operator that may not read nodes."""
    world = lost(node())
    world.see(nodes={})
    assert forced(at(world, 10**6)) == []


def test_a_pod_that_is_not_to_go_is_left_alone() -> None:
    """Its node may come back; whether it is to go is the cluster's own decision, by tolerations."""
    world = running()
    world.see(nodes={"node-1": node()})
    assert forced(at(world, 10**6)) == []


def test_it_is_said_which_node_is_lost_since_when_and_what_helps() -> None:
    world = lost(node())
    world.now = SINCE + timedelta(seconds=60)
    world.settle()
    assert world.reason("ResourcesReady") == ("False", "NodeLost")
    message = world.condition("ResourcesReady")["message"]
    due = stamp(SINCE + timedelta(seconds=120))
    for words in (
        f"node node-1 has not answered since {stamp(SINCE)}, and pod {CHILD}-w-0 with it",
        f"deleted by force at {due} (spec.runPolicy.nodeLost)",
        "kubectl delete node",
    ):
        assert words in message
    assert "its volume" not in message


def test_of_the_coordinator_it_is_said_that_its_volume_must_be_reached() -> None:
    world = lost(node(), position=0)
    world.now = SINCE + timedelta(seconds=60)
    world.settle()
    assert "on a node that reaches its volume" in world.condition("ResourcesReady")["message"]


def test_a_job_that_rests_or_has_ended_does_not_wait_for_a_node_either() -> None:
    for change in ("suspend", "end"):
        world = lost(node())
        if change == "suspend":
            world.edit(suspend=True)
        else:
            world.end()
        world.now = SINCE + timedelta(seconds=60)
        world.settle()
        wake = world.decide().wake_after
        assert wake is not None
        assert wake <= 60
        assert forced(at(world, 120)) == [f"{CHILD}-w-0"]
