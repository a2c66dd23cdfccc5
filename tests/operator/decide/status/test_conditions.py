"""The conditions of a job: their reasons and messages."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from tests.support.worlds.world import (
    CHILD,
    PLAN,
    World,
    claim,
    digits,
    pod,
    report,
    running,
    stamp,
    waiting_pod,
)


def settle(world: World) -> None:
    """As late as it takes until figures that are no news are written too."""
    world.later(60)
    world.settle()


def unmet() -> World:
    """Both pods are up, and no attempt has begun."""
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.see(pods=(pod(0), pod(1)), claim=claim())
    settle(world)
    return world


def met() -> World:
    """The gang has formed and tries its task."""
    world = unmet()
    world.ledger_status(attempt=1, attempts=[{"attempt": 1, "start": stamp(world.now)}])
    settle(world)
    return world


def told(world: World, kind: str) -> tuple[str, str, str]:
    found = world.condition(kind)
    return found["status"], found["reason"], found["message"]


def test_children_wait_for_the_plan_and_then_for_pods() -> None:
    world = World.of()
    world.later(3)
    world.settle()
    wait = "the workers wait for the privacy plan"
    assert told(world, "ResourcesReady") == ("False", "CreatingResources", wait)
    world.see(privacy_plan=PLAN)
    settle(world)
    pods = "0 of 2 worker pods are ready"
    assert told(world, "ResourcesReady") == ("False", "CreatingResources", pods)
    assert told(world, "RendezvousReady") == ("False", "WaitingForWorkers", pods)
    assert told(world, "Running") == ("False", "WaitingForWorkers", pods)


def test_pods_that_are_up_have_not_met_yet() -> None:
    world = unmet()
    up = "all children exist and their pods are up"
    assert told(world, "ResourcesReady") == ("True", "ResourcesCreated", up)
    pods = "2 of 2 worker pods are ready"
    assert told(world, "RendezvousReady") == ("False", "WaitingForWorkers", pods)


def test_a_gang_that_has_met_tries_its_task_before_it_trains() -> None:
    world = met()
    all_met = "all 2 workers have met"
    assert told(world, "RendezvousReady") == ("True", "RendezvousComplete", all_met)
    tried = "the task is tried on synthetic data"
    assert told(world, "Running") == ("False", "Preflight", tried)
    world.see(report=report(0, state="Starting", stage="importing the task"))
    settle(world)
    assert told(world, "Running") == ("False", "Preflight", "importing the task")


def test_a_gang_of_one_has_nobody_to_meet() -> None:
    world = World.of(digits(workers={"replicas": 1}), privacy_plan=PLAN)
    world.settle()
    world.later(5)
    world.see(pods=(pod(0),), claim=claim())
    world.lease()
    world.settle()
    assert told(world, "RendezvousReady") == ("True", "RendezvousComplete", "the worker is up")


def test_there_is_no_checkpoint_before_the_first_draw() -> None:
    world = met()
    first = "the first checkpoint is written before the first draw"
    assert told(world, "CheckpointFresh") == ("False", "NoCheckpointYet", first)
    world.lease()
    world.settle()
    recorded = "the ledger points to a durable checkpoint (status.checkpoint)"
    assert told(world, "CheckpointFresh") == ("True", "CheckpointRecorded", recorded)


def test_the_end_of_a_job_is_that_of_its_conditions() -> None:
    world = running()
    world.end()
    world.settle()
    for kind in ("ResourcesReady", "RendezvousReady", "Running", "NetworkRestricted"):
        assert told(world, kind) == ("False", "Finished", "the job has ended")


def test_a_slow_job_has_no_stale_checkpoint() -> None:
    world = running()
    assert world.observed.ledger is not None
    spec = world.observed.ledger["spec"]
    large = spec["plan"] | {"batchSize": 10**9, "datasetSize": 10**10}
    world.see(ledger=world.observed.ledger | {"spec": spec | {"plan": large}})
    world.see(report=report(7, samplesPerSecond=2e-6))
    world.later(10**6)
    world.settle()
    assert world.reason("CheckpointFresh") == ("True", "CheckpointRecorded")


def test_so_much_noise_that_epsilon_is_nought() -> None:
    none = {"epsilon": None, "noise_multiplier": 10_000.0, "epsilon_guaranteed": 0.0}
    world = World.of(privacy_plan=PLAN.model_copy(update=none))
    world.settle()
    assert "epsilon at most 0.000" in world.condition("Accepted")["message"]
    assert world.status["privacy"]["epsilonGuaranteed"] == "0.0000"
    assert world.status["display"]["epsilon"] == "0/0.00"


@pytest.mark.parametrize(("asked", "said"), [(8.0, False), (8.5, True), (None, False)])
def test_an_epsilon_far_below_what_is_asked_for_is_explained(
    asked: float | None, said: bool
) -> None:
    world = World.of(privacy_plan=PLAN.model_copy(update={"epsilon": asked}))
    world.settle()
    message = world.condition("Accepted")["message"]
    assert ("less than the 8.5 that is asked for" in message) == said


def test_a_stale_checkpoint_is_told() -> None:
    world = running()
    world.see(report=report(50))
    world.later(119)
    world.settle()
    assert world.reason("CheckpointFresh") == ("True", "CheckpointRecorded")
    world.later(20)
    world.settle()
    assert world.reason("CheckpointFresh") == ("False", "CheckpointStale")


def test_a_calibration_that_fails_is_told() -> None:
    world = World.of()
    world.later(3)
    world.settle()
    assert "is being calibrated" in world.condition("Accepted")["message"]
    assert world.decide().wake_after is None
    world.later(10)
    world.see(planning_trouble="the helper process was killed (SIGKILL)")
    pause = world.reconcile().wake_after
    assert pause is not None, "the write has to wait, so the job is looked at again"
    world.later(pause)
    world.settle()
    assert world.decide().wake_after is None
    assert world.reason("Accepted") == ("Unknown", "Planning")
    assert world.reason("Running") == ("False", "Planning")
    message = world.condition("Accepted")["message"]
    for words in ("could not be calibrated", "killed (SIGKILL)", "memory"):
        assert words in message
    world.see(privacy_plan=PLAN, planning_trouble=None)
    world.settle()
    assert world.reason("Accepted") == ("True", "Planned")


def test_the_place_in_the_queue_is_written_with_other_news_only() -> None:
    """A thousand jobs that wait would else be written a thousand times each."""
    world = World.of(plans_before=3)
    world.later(3)
    world.settle()
    for kind in ("Accepted", "Running"):
        assert world.condition(kind)["message"] == (
            "the noise multiplier for epsilon and delta is being calibrated; 3 other plans, when "
            "this was written, were to be made first"
        )
    written = len(world.patches)
    for before in (2, 1, 0):
        world.later(60)
        world.see(plans_before=before)
        assert world.reconcile().wake_after is None
    assert len(world.patches) == written
    world.see(plans_before=1, planning_trouble="no memory")
    world.settle()
    assert "no memory" in world.condition("Accepted")["message"]
    world.later(60)
    world.see(planning_trouble=None)
    world.settle()
    assert "; 1 other plan, when this was written, was to" in world.condition("Accepted")["message"]
    world.see(privacy_plan=PLAN)
    world.settle()
    assert world.reason("Accepted") == ("True", "Planned")


def test_a_transition_time_moves_only_with_the_status() -> None:
    world = running()
    was = world.condition("Running")["lastTransitionTime"]
    job = copy.deepcopy(world.observed.job)
    job["metadata"]["generation"] = 7
    world.see(job=job)
    world.later(60)
    world.settle()
    condition = world.condition("Running")
    assert condition["lastTransitionTime"] == was
    assert condition["observedGeneration"] == 7


def leaves(position: int, reason: str, status: str = "True") -> dict[str, Any]:
    found = pod(position)
    found["status"]["conditions"].append(
        {"type": "DisruptionTarget", "status": status, "reason": reason, "message": "evicting"}
    )
    return found


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("EvictionByEvictionAPI", "kubectl drain"),
        ("PreemptionByScheduler", "higher priority"),
        ("DeletionByTaintManager", "a taint that it does not tolerate"),
        ("DeletionByPodGC", "its node is gone"),
        ("TerminationByKubelet", "shuts down or lacks memory or disk"),
        ("OfAnotherVersion", "has to leave its node (OfAnotherVersion)"),
    ],
)
def test_who_ends_a_pod_is_in_the_message_while_it_lasts(reason: str, words: str) -> None:
    world = running()
    world.see(pods=(pod(0), leaves(1, reason)))
    settle(world)
    assert told(world, "Running")[:2] == ("True", "Training")
    message = told(world, "Running")[2]
    assert message.startswith(f"steps are executed; pod {CHILD}-w-0 ")
    assert words in message
    world.see(pods=(pod(0), pod(1)))
    settle(world)
    assert told(world, "Running")[2] == "steps are executed"


def test_a_disruption_that_was_called_off_is_none() -> None:
    world = running()
    world.see(pods=(pod(0), leaves(1, "PreemptionByScheduler", status="False")))
    settle(world)
    assert told(world, "Running")[2] == "steps are executed"


def test_a_drain_is_told_with_the_restart_and_of_one_pod_by_name() -> None:
    world = running()
    drained = leaves(0, "EvictionByEvictionAPI")
    drained["metadata"]["deletionTimestamp"] = stamp(world.now)
    deleted = pod(1)
    deleted["metadata"]["deletionTimestamp"] = stamp(world.now)
    attempt = {"attempt": 1, "start": stamp(world.now), "end": stamp(world.now)}
    world.ledger_status(attempts=[attempt | {"reason": "Stopped", "message": ""}])
    world.see(pods=(drained, deleted))
    world.reconcile()
    kind, message = told(world, "Running")[1:]
    assert kind == "Restarting"
    assert f"it was drained; pod {CHILD}-0 is evicted, as kubectl drain" in message
    assert message.endswith("(and 1 more leave)")
    world.see(pods=(deleted,))
    settle(world)
    assert told(world, "Running")[2].endswith(f"; pod {CHILD}-w-0 is being deleted")


def test_a_pod_that_no_kubelet_ends_is_told_with_its_node_and_what_would_help() -> None:
    """Its node is gone: nobody else says of it that it has ended."""
    world = running()
    gone = leaves(1, "DeletionByTaintManager")
    ends_by = world.now + timedelta(seconds=60)
    gone["metadata"]["deletionTimestamp"] = stamp(ends_by)
    world.see(pods=(leaves(0, "EvictionByEvictionAPI"), gone))
    world.later(50)
    settle(world)
    assert f"pod {CHILD}-0 is evicted" in told(world, "Running")[2]
    world.later(60)
    settle(world)
    message = told(world, "Running")[2]
    assert message == (
        f"steps are executed; pod {CHILD}-w-0 was to be gone by {stamp(ends_by)}, and its node "
        "node-1 does not say that it has ended: see kubectl describe node node-1. Another takes "
        "its place once that node answers, or is deleted. Where that machine is known to be off, "
        f"and only there, since the pod may run on: kubectl delete pod {CHILD}-w-0 --namespace "
        "research --force (and 1 more leave)"
    )
    patches = len(world.patches)
    world.later(3600)
    settle(world)
    assert told(world, "Running")[2] == message
    assert len(world.patches) == patches, "it is told once"


def test_a_pod_that_a_finalizer_keeps_is_told_with_it() -> None:
    world = running()
    ended = {"terminated": {"exitCode": 0, "finishedAt": stamp(world.now)}}
    kept = pod(1, containerStatuses=[{"name": "worker", "state": ended}])
    kept["metadata"] |= {"deletionTimestamp": stamp(world.now), "finalizers": ["queue.test/pods"]}
    world.see(pods=(pod(0), kept))
    world.later(61)
    settle(world)
    assert "is kept by its finalizers (queue.test/pods): see" in told(world, "Running")[2]
    kept["status"] = pod(1)["status"]  # as its node said last
    world.see(pods=(pod(0), copy.deepcopy(kept)))
    settle(world)
    assert "its node node-1 does not say that it has ended" in told(world, "Running")[2]


def test_what_hinders_a_job_is_told_without_the_pods_that_leave() -> None:
    """Its message is the remedy's; which pods are left would write it again and again."""
    world = unmet()
    crashed = waiting_pod("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1}})
    deleted = pod(1)
    deleted["metadata"]["deletionTimestamp"] = stamp(world.now)
    world.see(pods=(crashed, deleted))
    settle(world)
    assert told(world, "Running")[1] == "WorkerCrashing"
    assert "is being deleted" not in told(world, "Running")[2]
