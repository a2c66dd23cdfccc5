"""A job of an older operator, with all workers in one StatefulSet, is left as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_operator.decide.obstacles.older_shape import has_older_shape
from tests.support.worlds.world import CHILD, World, pod, running

Json = dict[str, Any]


def older(world: World, replicas: int) -> Json:
    """What an older operator made of the job."""
    assert world.observed.coordinator_set is not None
    stored = copy.deepcopy(world.observed.coordinator_set)
    del stored["metadata"]["labels"]["dtjob.dev/role"]
    del stored["spec"]["selector"]["matchLabels"]["dtjob.dev/role"]
    del stored["spec"]["template"]["metadata"]["labels"]["dtjob.dev/role"]
    stored["spec"]["replicas"] = replicas
    return stored


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_is_refused_with_a_sentence_and_nothing_is_touched(replicas: int) -> None:
    world = running()
    stored = older(world, replicas)
    world.see(coordinator_set=stored, worker_set=None, service=None)
    applied = len(world.applied)
    world.settle()
    assert len(world.applied) == applied
    assert world.observed.coordinator_set == stored
    assert world.reason("ResourcesReady") == ("False", "MadeByOlderOperator")
    message = world.condition("ResourcesReady")["message"]
    for words in (f"StatefulSet {CHILD}", "kubectl delete dtjob digits -n research", "spends anew"):
        assert words in message
    assert world.status["phase"] == "Running", "its pods train"

    world.see(pods=())
    world.settle()
    assert world.reason("Running") == ("False", "MadeByOlderOperator")


@pytest.mark.parametrize("lost", ["ledger", "claim"])
def test_its_pods_stay_whatever_is_lost(lost: str) -> None:
    world = running()
    stored = older(world, 2)
    world.see(coordinator_set=stored, worker_set=None, **{lost: None})
    world.settle()
    assert world.observed.coordinator_set == stored


def test_its_end_is_told_and_its_pods_stay() -> None:
    world = running()
    stored = older(world, 2)
    world.see(coordinator_set=stored, worker_set=None)
    world.end()
    world.settle()
    assert world.status["phase"] == "Succeeded"
    assert world.observed.coordinator_set == stored


def test_one_that_was_scaled_by_hand_is_none() -> None:
    world = running()
    assert world.observed.coordinator_set is not None
    scaled = copy.deepcopy(world.observed.coordinator_set)
    scaled["spec"]["replicas"] = 2
    world.see(coordinator_set=scaled, pods=(pod(0), pod(1)))
    assert not has_older_shape(scaled)
    world.settle()
    assert world.observed.coordinator_set["spec"]["replicas"] == 1
