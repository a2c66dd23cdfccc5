"""A status stays small, however many workers a job has and whatever is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dtjob_api.job.status import JobStatus
from dtjob_operator.read.events import by_child
from dtjob_operator.terms.observed import Rejection, Spent
from tests.support.builders import UID
from tests.support.worlds.world import (
    CHILD,
    NOW,
    PLAN,
    World,
    claim,
    digits,
    pod,
    report,
    stamp,
    waiting_pod,
)

Json = dict[str, Any]
WORKERS = 512
MOST_BYTES = 32 * 1024
TEXTS = {
    "letters": "no such thing ",
    "of three bytes": "没有",
    "of four bytes": "𝔘𝔫𝔡",
    "quotes": '\\"',
    "unprintable": "\x1b\u202e",
}
GPU: Json = {
    "count": 4096,
    "utilizationPercent": {"min": 0, "mean": 50, "max": 100},
    "memoryUsedBytes": 2**50,
    "memoryTotalBytes": 2**51,
    "temperatureMaxCelsius": 100,
    "powerWatts": 10**6,
    "worstRank": 4095,
    "workers": [
        {
            "rank": rank,
            "utilizationPercent": 100,
            "memoryUsedBytes": 2**47,
            "temperatureCelsius": 100,
        }
        for rank in range(16)
    ],
}
FIGURES = {f"{'figure' * 9}{number:09}": -1.2345678e-300 for number in range(32)}


def long(text: str, position: int = 0) -> str:
    return f"{position} " + text * 3000


def troubled(position: int, text: str) -> Json:
    """A pod with a trouble of its own."""
    said = long(text, position)
    ended = {"exitCode": 1, "reason": "Error", "message": said}
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    kinds: list[Callable[[], Json]] = [
        lambda: waiting_pod("ImagePullBackOff", said, position),
        lambda: waiting_pod("CreateContainerConfigError", said, position),
        lambda: waiting_pod("RunContainerError", said, position),
        lambda: waiting_pod("CrashLoopBackOff", said, position, lastState={"terminated": ended}),
        lambda: waiting_pod("ContainerCreating", said, position),
        lambda: pod(position, conditions=[no_node | {"message": said}], containerStatuses=[]),
        lambda: leaving(position, said),
        lambda: deleted(position),
    ]
    return kinds[position % len(kinds)]()


def leaving(position: int, said: str) -> Json:
    found = pod(position)
    target = {"type": "DisruptionTarget", "status": "True", "reason": said, "message": said}
    found["status"]["conditions"].append(target)
    return found


def deleted(position: int) -> Json:
    found = pod(position)
    found["metadata"]["deletionTimestamp"] = stamp(NOW)
    return found


def event(kind: str, name: str, reason: str, text: str) -> Json:
    about = {"kind": kind, "name": name}
    at = stamp(NOW)
    return {
        "metadata": {},
        "involvedObject": about,
        "reason": reason,
        "message": long(text),
        "lastTimestamp": at,
    }


def beset(text: str) -> World:
    """A job of 512 workers, each in another trouble; the first one's is looked at first."""
    world = World.of(digits(workers={"replicas": WORKERS}), privacy_plan=PLAN)
    world.settle()
    world.later(60)
    world.see(pods=tuple(troubled(position, text) for position in range(WORKERS)), claim=claim())
    return world


def size(status: Any) -> int:
    return len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())


def look(world: World, phase: str) -> None:
    world.later(60)
    world.settle()
    assert world.status["phase"] == phase
    assert JobStatus.model_validate(world.status).to_dict() == world.status
    assert size(world.status) < MOST_BYTES


@pytest.fixture(params=list(TEXTS.values()), ids=list(TEXTS))
def text(request: pytest.FixtureRequest) -> str:
    """What somebody says, again and again."""
    return str(request.param)


def test_of_workers_that_do_not_start(text: str) -> None:
    world = beset(text)
    pods = world.observed.pods
    refused = [
        event("StatefulSet", f"{CHILD}-w", "FailedCreate", text),
        *(event("Pod", each["metadata"]["name"], "FailedMount", text) for each in pods),
    ]
    longest = 0
    for first in range(8):  # each trouble in turn is the one that is looked at first
        world.see(pods=pods[first:])
        look(world, "Starting")
        longest = max(longest, len(world.condition("Running")["message"]))
    world.see(events=by_child(refused)[CHILD])
    look(world, "Starting")
    world.see(rejections=(Rejection("NetworkPolicy", CHILD, long(text)),))
    look(world, "Starting")
    lost = {each["metadata"]["name"]: {"dtjob.dev/job-uid": UID} for each in pods}
    world.see(rejections=(), unlabelled=lost)
    look(world, "Starting")
    assert longest > 1000


def test_of_a_job_whose_children_are_not_made(text: str) -> None:
    """The same words are in three conditions then."""
    world = beset(text)
    world.see(unguarded=long(text), network_policy=None)
    look(world, "Pending")
    for kind in ("ResourcesReady", "Running", "NetworkRestricted"):
        assert 4000 < size(world.condition(kind)["message"]) <= 4098


def trains(text: str) -> World:
    world = beset(text)
    world.see(pods=tuple(pod(position) for position in range(WORKERS)))
    world.later(5)
    world.lease()
    said = report(190, workers=WORKERS, gpu=GPU, evaluation=FIGURES)
    world.see(report=said, spent=Spent("2.3012", 10))
    world.settle()
    troubles = tuple(troubled(position, text) for position in range(1, WORKERS))
    world.see(pods=(pod(0), *troubles), report_trouble=long(text))
    return world


def test_of_a_job_that_trains_and_ends(text: str) -> None:
    world = trains(text)
    look(world, "Running")
    assert world.condition("Running")["message"].startswith("steps are executed")
    begun = {"attempt": 1, "start": stamp(NOW), "end": stamp(world.now)}
    world.ledger_status(
        attempts=[begun | {"reason": "TaskFailed", "message": (text * 1024)[:1024]}]
    )
    world.see(pods=tuple(troubled(position, text) for position in range(WORKERS)))
    look(world, "Restarting")
    result = {"evaluation": FIGURES, "modelDigest": f"sha256:{'0' * 64}"}
    world.end("Failed", "TaskFailed", message=(text * 1024)[:1024], result=result)
    look(world, "Failed")
    assert world.status["result"]["evaluation"] == FIGURES


def test_of_a_job_that_succeeds(text: str) -> None:
    world = trains(text)
    world.end("Succeeded", "Completed", result={"evaluation": FIGURES})
    look(world, "Succeeded")
