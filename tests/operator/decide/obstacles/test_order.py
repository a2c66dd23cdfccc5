"""Bad surroundings end in a reason and a message that says what, where and the remedy."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dtjob_api.reasons import ConditionType
from dtjob_operator.decide.facts import gather
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.obstacles.order import ORDER, find
from dtjob_operator.read.events import by_child
from dtjob_operator.read.stored_job import parsed
from dtjob_operator.terms.observed import Rejection
from tests.support.builders import UID
from tests.support.worlds.world import (
    CHILD,
    NOW,
    PLAN,
    World,
    claim,
    digits,
    pod,
    running,
    stamp,
    waiting_pod,
)

CASES = YAML(typ="safe").load(Path(__file__).with_name("diagnoses.yaml").read_text())


def event(case: dict[str, Any]) -> dict[str, Any]:
    kind, name = case["about"].split("/")
    return {
        "metadata": {},
        "type": "Warning",
        "involvedObject": {"kind": kind, "name": name},
        "reason": case["reason"],
        "message": case["message"],
        "lastTimestamp": stamp(NOW + timedelta(seconds=case.get("seen", 20))),
    }


def stored_claim(phase: str, storage_class: str | None = None) -> dict[str, Any]:
    return claim(phase, **({"storageClassName": storage_class} if storage_class else {}))


def started(case: dict[str, Any]) -> World:
    """A job whose StatefulSets have just been made, in the surroundings of a case."""
    spec: dict[str, Any] = {"workers": {"replicas": case.get("workers", 1)}}
    world = World.of(digits(**spec | case.get("spec", {})), privacy_plan=PLAN)
    world.settle()
    world.later(case.get("age", 30))
    world.see(
        pods=(pod(case.get("position", 0), **case["pod"]),) if "pod" in case else (),
        claim=stored_claim(**case["claim"]) if "claim" in case else None,
        events=by_child(event(each) for each in case.get("events", ())).get(CHILD, {}),
        rejections=tuple(Rejection(**each) for each in case.get("rejections", ())),
    )
    return world


def test_what_releases_pods_outranks_what_leaves_them_and_that_the_rest() -> None:
    """For who looks at the first alone knows what becomes of the children."""
    ranks = [list(Children).index(kind.children) for kind in ORDER]
    assert ranks == sorted(ranks)
    assert all(ConditionType.RUNNING in kind.conditions for kind in ORDER)


def test_of_what_hinders_all_and_what_hinders_pods_the_first_is_shown() -> None:
    """A pod that no node takes is no news while nothing may be made."""
    world = started(
        next(case for case in CASES if case["expect"] and "Unschedulable" in case["expect"])
    )
    world.see(unguarded="the policy is gone")
    facts = gather(world.observed, parsed(world.observed.job), world.now, world.settings)
    (found,) = find(facts)
    assert found.finding.reason == "LedgersUnguarded"
    world.see(unguarded=None)
    facts = gather(world.observed, parsed(world.observed.job), world.now, world.settings)
    assert [each.finding.reason for each in find(facts)] == ["Unschedulable"]


def test_of_all_that_keeps_pods_from_coming_up_what_stops_most_of_them_comes_first() -> None:
    """All at once; each is put right in turn, and the next one is told."""
    world = started({"workers": 5, "age": 90})
    refused, unmounted = (
        by_child([event({"about": about, "reason": reason, "message": "why", "seen": 60})])[CHILD]
        for about, reason in (
            (f"StatefulSet/{CHILD}-w", "FailedCreate"),
            (f"Pod/{CHILD}-0", "FailedMount"),
        )
    )
    crash = {"terminated": {"exitCode": 1, "reason": "Error", "message": "why"}}
    crashed = waiting_pod("CrashLoopBackOff", lastState=crash, position=2)
    mounting = waiting_pod("ContainerCreating", position=0)
    image = waiting_pod("ImagePullBackOff", "not found", position=1)
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    homeless = pod(3, conditions=[no_node | {"message": "0/1 nodes"}], containerStatuses=[])
    world.see(
        rejections=(Rejection("Service", CHILD, "exceeded quota"),),
        unlabelled={f"{CHILD}-w-3": {"dtjob.dev/job-uid": UID}},
        events={**refused, **unmounted},
        pods=(mounting, image, crashed, homeless),
    )
    told = []
    mended: dict[str, Any]
    for mended in (
        {"rejections": ()},
        {"unlabelled": {}},
        {"events": unmounted},
        {"pods": (mounting, image, crashed)},
        {"pods": (mounting, crashed)},
        {"pods": (crashed,)},
        {"pods": ()},
    ):
        facts = gather(world.observed, parsed(world.observed.job), world.now, world.settings)
        told.append([each.finding.reason for each in find(facts)])
        world.see(**mended)
    assert told == [
        ["PodsRefused"],
        ["WorkerUnlabelled"],
        ["PodsRefused"],
        ["Unschedulable"],
        ["ImagePullFailed"],
        ["MountFailed"],
        ["WorkerCrashing"],
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_surroundings_are_explained(case: dict[str, Any]) -> None:
    world = started(case)
    written = len(world.patches)
    world.reconcile()
    if case["expect"] is None:
        assert world.reason("ResourcesReady")[1] in {"CreatingResources", "ResourcesCreated"}
        return
    ((reason, words),) = case["expect"].items()
    assert len(world.patches) == written + 1, "trouble is told at once"
    for kind in ("ResourcesReady", "Running"):
        assert world.reason(kind) == ("False", reason)
        for word in words:
            assert word in world.condition(kind)["message"]
    assert world.events[-1] == reason
    assert world.status["phase"] == "Starting"


def test_trouble_that_has_passed_is_cleared_at_once() -> None:
    world = started(next(case for case in CASES if case["name"] == "quota"))
    world.reconcile()
    world.later(1)
    world.see(events={}, pods=(pod(0, since=world.now),))
    world.reconcile()
    assert world.reason("ResourcesReady") == ("True", "ResourcesCreated")
    assert world.reason("Running") == ("False", "WaitingForWorkers")


def test_a_standing_trouble_is_written_and_announced_once() -> None:
    world = started(next(case for case in CASES if case["name"] == "quota"))
    world.reconcile()
    written, told = len(world.patches), list(world.events)
    for _ in range(10):
        world.later(5)
        world.reconcile()
    assert len(world.patches) == written
    assert world.events == told


def test_a_claim_that_was_deleted_is_shown_while_the_gang_trains_on() -> None:
    """The last moment to keep its volume."""
    world = running()
    deleted = claim(volumeName="pvc-7")
    deleted["metadata"]["deletionTimestamp"] = stamp(world.now)
    world.see(claim=deleted)
    world.settle()
    assert world.status["phase"] == "Running"
    for kind in ("ResourcesReady", "CheckpointFresh"):
        assert world.reason(kind) == ("False", "ClaimTerminating")
    message = world.condition("ResourcesReady")["message"]
    assert (
        f"PersistentVolumeClaim checkpoints-{CHILD}-0 in namespace research was deleted" in message
    )
    assert (
        """kubectl patch pv pvc-7 --patch '{"spec":{"persistentVolumeReclaimPolicy":""" in message
    )
