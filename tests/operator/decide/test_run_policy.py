"""A change of spec.runPolicy waits while there are pods, and says so."""

from __future__ import annotations

import copy

from tests.support.worlds.world import World, running


def changed(world: World, **policy: int) -> None:
    job = copy.deepcopy(world.observed.job)
    job["spec"]["runPolicy"] |= policy
    job["metadata"]["generation"] += 1
    world.see(job=job)
    world.settle()


def test_a_changed_run_policy_is_told_to_wait() -> None:
    world = running()
    changed(world, maxRestarts=3, stallSeconds=600)
    assert world.applied.count("StatefulSet") == 2
    assert world.events.count("RunPolicyDeferred") == 1
    world.later(60)
    world.settle()
    assert world.events.count("RunPolicyDeferred") == 1
    changed(world, maxRestarts=10, stallSeconds=300)
    assert world.events.count("RunPolicyDeferred") == 1, "that is what the workers have"


def test_the_event_names_what_was_changed_and_what_holds() -> None:
    world = running()
    job = copy.deepcopy(world.observed.job)
    job["spec"]["runPolicy"]["stallSeconds"] = 600
    job["metadata"]["generation"] += 1
    world.see(job=job)
    (event,) = world.decide().events
    assert event.message.startswith(
        "spec.runPolicy.stallSeconds is 600, but the workers were started with 300"
    )
    assert "maxRestarts" not in event.message


def test_a_changed_run_policy_without_pods_is_followed_at_once() -> None:
    world = running()
    assert world.observed.coordinator_set is not None
    stopped = copy.deepcopy(world.observed.coordinator_set)
    stopped["spec"]["replicas"] = 0
    world.see(coordinator_set=stopped, pods=())
    changed(world, stallSeconds=600)
    assert "RunPolicyDeferred" not in world.events
    (container,) = world.observed.coordinator_set["spec"]["template"]["spec"]["containers"]
    assert any('"stallSeconds":600' in v.get("value", "") for v in container["env"])


def test_a_finished_job_is_told_nothing_of_its_run_policy() -> None:
    world = running()
    world.end()
    world.settle()
    changed(world, stallSeconds=600)
    assert "RunPolicyDeferred" not in world.events
