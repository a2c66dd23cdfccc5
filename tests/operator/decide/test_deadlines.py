"""How long a job may take, and for how long what is left of it stays."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from tests.support.worlds.world import NOW, PLAN, World, digits, pod, running, stamp

Json = dict[str, Any]


def policy(world: World, **fields: int) -> None:
    world.edit(runPolicy=world.observed.job["spec"]["runPolicy"] | fields)


def order(world: World) -> str:
    assert world.observed.ledger is not None
    state: str = world.observed.ledger["spec"]["run"]["state"]
    return state


def sizes(world: World) -> tuple[int, ...]:
    sets = (world.observed.coordinator_set, world.observed.worker_set)
    return tuple(each["spec"]["replicas"] for each in sets if each is not None)


def at(world: World, seconds: float) -> None:
    """So many seconds after the job's start."""
    world.now = NOW + timedelta(seconds=seconds)
    world.settle()


def leave(world: World) -> None:
    """The workers stop in order, and their pods go."""
    world.stop()
    world.ledger_status(drained=2)
    world.settle()
    assert sizes(world) == (0, 0)
    world.see(pods=())
    world.settle()


class TestActiveDeadline:
    def test_a_job_that_takes_too_long_stops_in_order_and_fails(self) -> None:
        world = running()
        policy(world, activeDeadlineSeconds=100)
        at(world, 99)
        assert (order(world), world.status["phase"]) == ("Run", "Running")
        assert world.decide().wake_after == 1.0
        at(world, 100)
        assert order(world) == "Drain"
        assert sizes(world) == (1, 1), "its last step is saved"
        assert world.reason("Running") == ("False", "DeadlineExceeded")
        leave(world)
        assert world.status["phase"] == "Failed"
        assert world.reason("Failed") == ("True", "DeadlineExceeded")
        assert world.status["completionTime"] == stamp(world.now)
        message = world.condition("Failed")["message"]
        assert "within 100 s (spec.runPolicy.activeDeadlineSeconds)" in message
        assert world.observed.coordinator_set is None
        assert "Suspended" not in {each["type"] for each in world.status["conditions"]}
        at(world, 10**6)
        assert world.status["phase"] == "Failed"

    def test_more_time_that_is_given_meanwhile_lets_it_go_on(self) -> None:
        world = running()
        policy(world, activeDeadlineSeconds=100)
        at(world, 100)
        assert order(world) == "Drain"
        policy(world, activeDeadlineSeconds=1000)
        world.settle()
        assert order(world) == "Run"

    def test_it_begins_anew_when_the_job_is_resumed(self) -> None:
        world = running()
        policy(world, activeDeadlineSeconds=100)
        at(world, 50)
        world.edit(suspend=True)
        world.settle()
        leave(world)
        at(world, 5000)
        assert world.status["phase"] == "Suspended"
        world.edit(suspend=False)
        at(world, 5001)
        assert order(world) == "Run"
        at(world, 5100)
        assert order(world) == "Run"
        at(world, 5101)
        assert order(world) == "Drain"
        assert world.reason("Failed") == ("True", "DeadlineExceeded")

    def test_the_end_that_the_ledger_has_stands(self) -> None:
        world = running()
        policy(world, activeDeadlineSeconds=100)
        world.end()
        at(world, 100)
        assert world.status["phase"] == "Succeeded"


class TestStartDeadline:
    def test_a_half_placed_gang_gives_its_nodes_back(self) -> None:
        world = World.of(privacy_plan=PLAN)
        policy(world, startDeadlineSeconds=60)
        world.settle()
        world.see(pods=(pod(0),))
        at(world, 59)
        assert sizes(world) == (1, 1)
        at(world, 61)
        assert (order(world), sizes(world)) == ("Drain", (0, 0))
        world.see(pods=())
        world.settle()
        assert world.reason("Failed") == ("True", "StartDeadlineExceeded")
        assert world.status["privacy"]["drawsCharged"] == 0

    def test_a_job_that_has_trained_has_started(self) -> None:
        world = running()
        policy(world, startDeadlineSeconds=60)
        world.see(pods=())  # its node is gone
        at(world, 3600)
        assert order(world) == "Run"


@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_pods_of_a_job_that_has_failed_stay_for_a_look(state: str) -> None:
    world = running()
    policy(world, holdAfterFailureSeconds=300)
    world.end(state, "Completed" if state == "Succeeded" else "RestartsExhausted")
    at(world, 30)
    assert (world.observed.coordinator_set is not None) == (state == "Failed")
    if state == "Failed":
        assert world.decide().wake_after == 300
        at(world, 329)
        assert world.observed.coordinator_set is not None
        at(world, 330)
    assert world.observed.coordinator_set is None


def is_deleted(world: World) -> bool:
    return "deletionTimestamp" in world.observed.job["metadata"]


class TestTimeToLive:
    def test_a_job_that_has_ended_is_deleted_and_its_ledger_stays(self) -> None:
        world = running()
        policy(world, ttlSecondsAfterFinished=600)
        world.end()
        at(world, 10)
        world.see(pods=())
        world.settle()
        assert world.decide().wake_after == 600
        at(world, 609)
        assert not is_deleted(world)
        at(world, 610)
        assert is_deleted(world)
        assert world.observed.ledger is not None
        assert world.observed.claim is not None

    def test_not_before_its_last_pod_has_gone_and_all_of_its_epsilon_is_known(self) -> None:
        world = running()
        policy(world, ttlSecondsAfterFinished=0)
        world.end()
        at(world, 10)
        assert not is_deleted(world)
        world.see(pods=(), spent_pending=True)
        world.settle()
        assert not is_deleted(world)
        world.see(spent_pending=False)
        world.settle()
        assert is_deleted(world)

    def test_one_that_was_done_before_lives_from_when_it_says_so(self) -> None:
        done = running()
        done.end()
        world = World.of(digits(), ledger=copy.deepcopy(done.observed.ledger), is_done_before=True)
        policy(world, ttlSecondsAfterFinished=60)
        at(world, 10**6)
        assert world.reason("Succeeded") == ("True", "AlreadyCompleted")
        assert not is_deleted(world)
        at(world, 10**6 + 60)
        assert is_deleted(world)
