"""What is held of an object is what `Observed` names, and no decision misses the rest."""

from __future__ import annotations

import copy
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_operator.decide.desired_state import decide
from dtjob_operator.kube.trimmed import trimmed
from dtjob_operator.terms import kinds
from dtjob_operator.terms.observed import Spent
from tests.support.worlds.world import World, claim, pod, running, stamp, waiting_pod

PROVENANCE = {
    "image": "ghcr.io/dtjob/trainer:0.1.0",
    "formats": {"sampling": 2, "noise": 3},
    "versions": {
        "python": "3.11.7",
        "dtjob": "0.1.0",
        "torch": "2.3.1",
        "opacus": "1.5.2",
        "numpy": "1.26.4",
    },
    "taskDigest": "sha256:" + "b" * 64,
}
SEGMENT = {"noiseMultiplier": 2.20319, "sampleRate": 0.178149, "draws": 10}


def ended() -> World:
    world = running()
    world.see(spent=Spent("0.9", 10))
    failed = {
        "attempt": 1,
        "start": stamp(world.now),
        "end": stamp(world.now),
        "reason": "WorkerLost",
        "message": "worker 1 stopped answering",
        "rank": 1,
    }
    (last,) = world.observed.ledger["status"]["attempts"]  # type: ignore[index]
    world.ledger_status(segments=[SEGMENT | PROVENANCE], attempts=[failed, last | {"attempt": 2}])
    world.end()
    return world


def half_scheduled() -> World:
    world = running()
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no GPU"}
    unscheduled["reason"] = "Unschedulable"
    waiting = pod(1, phase="Pending", conditions=[unscheduled], containerStatuses=[])
    world.see(pods=(waiting_pod("ErrImagePull", "not found"), waiting), claim=claim())
    world.later(60)
    return world


def outlived(*, by_finalizer: bool) -> World:
    """Pods whose node, or a finalizer, does not let them go."""
    world = running()
    ended = {"terminated": {"exitCode": 0, "finishedAt": stamp(world.now)}}
    first = pod(0, containerStatuses=[{"name": "worker", "state": ended}])
    pods = (first if by_finalizer else pod(0), pod(1))
    for each in pods:
        each["metadata"] |= {"deletionTimestamp": stamp(world.now), "finalizers": ["a.test/b"]}
    world.see(pods=pods)
    world.later(120)
    return world


@pytest.mark.parametrize(
    "make",
    [
        running,
        ended,
        half_scheduled,
        partial(outlived, by_finalizer=True),
        partial(outlived, by_finalizer=False),
    ],
)
def test_decisions_from_what_is_held_are_those_from_the_whole(make: Any) -> None:
    world = make()
    whole = world.observed
    assert whole.claim is not None
    for each in (*whole.pods, whole.claim):
        each["metadata"]["managedFields"] = [{"manager": "kubelet"}]
        each["metadata"]["annotations"] = {"other.example/injected": "x" * 100}
    cut = copy.copy(whole)
    for field, kind in (
        ("ledger", kinds.LEDGER),
        ("coordinator_set", kinds.STATEFUL_SET),
        ("worker_set", kinds.STATEFUL_SET),
        ("claim", kinds.CLAIM),
    ):
        object.__setattr__(cut, field, trimmed(getattr(whole, field), kind))
    object.__setattr__(cut, "pods", tuple(trimmed(each, kinds.POD) for each in whole.pods))
    assert decide(cut, world.now, world.settings) == decide(whole, world.now, world.settings)


def test_of_a_ledger_that_has_ended_little_is_held() -> None:
    ledger = ended().observed.ledger
    assert ledger is not None
    status = trimmed(ledger, kinds.LEDGER)["status"]
    assert status["segments"] == [SEGMENT | {"image": PROVENANCE["image"]}]
    assert [set(each) <= {"attempt", "start", "end", "reason"} for each in status["attempts"]]
    assert "message" not in status["attempts"][0]
    assert PrivacyLedger.from_dict(trimmed(ledger, kinds.LEDGER)).status.charged == 10


def test_a_field_of_a_newer_version_is_held() -> None:
    """By it the ledger is known to be unreadable, and nothing is decided on the half of it."""
    ledger = running().observed.ledger
    assert ledger is not None
    newer = ledger | {"status": ledger["status"] | {"future": 1}}
    assert trimmed(newer, kinds.LEDGER)["status"]["future"] == 1


def test_what_kubectl_notes_of_a_job_is_not_held() -> None:
    job = running().observed.job
    note = "kubectl.kubernetes.io/last-applied-configuration"
    annotations = {note: "{}" * 1000, "team": "vision"}
    noted = job | {"metadata": job["metadata"] | {"annotations": annotations, "managedFields": []}}
    found = trimmed(noted, kinds.JOB)
    assert found["metadata"] == job["metadata"] | {"annotations": {"team": "vision"}}
    assert found["spec"] == job["spec"]
    assert annotations[note], "what was given is not changed"
    assert datetime.fromisoformat(found["metadata"]["creationTimestamp"])


def test_of_an_event_it_is_held_how_often_it_was_recorded() -> None:
    """The next time counts on from it."""
    event = {"metadata": {"name": "digits.1"}, "involvedObject": {"kind": "Job"}, "count": 3}
    assert trimmed(event, kinds.EVENT)["count"] == 3
