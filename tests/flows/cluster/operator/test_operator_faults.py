"""Kills, outages and refusals: whatever is in its way, the operator ends where it would have."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.clusters import standstill
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

STARTS_SECONDS = 120
OUTAGE_SECONDS = 20
REFUSALS = 8
NOT_NEWS = {"resourceVersion", "uid", "creationTimestamp", "managedFields", "name", "generateName"}
StoredJob = Callable[[Manifest], Manifest]
Start = Callable[[], OperatorProcess]


def phase(kubectl: Kubectl, name: str) -> str | None:
    stored = kubectl.get("dtjob", name)
    return stored.get("status", {}).get("phase") if stored else None


def started(kubectl: Kubectl, name: str) -> None:
    wait_for(f"{name} is Starting", lambda: phase(kubectl, name) == "Starting", STARTS_SECONDS)


@pytest.fixture(autouse=True)
def clear(proxy: ApiProxy) -> None:
    """The proxy lets everything pass again."""
    proxy.after_write = lambda _count: None
    proxy.refuse = lambda _method, _path: None
    proxy.copies, proxy.delay = 1, lambda _path: 0.0


def outcome(kubectl: Kubectl, stored: Manifest) -> Manifest:
    """What a start has come to, without what differs from one job to the next."""
    name = child_name(stored)
    found: Manifest = {}
    own = ("statefulset", "service", "networkpolicy", "poddisruptionbudget", "privacyledger")
    for kind, of in (*((kind, name) for kind in own), ("statefulset", f"{name}-w")):
        child = kubectl.get(kind, of)
        assert child is not None, (kind, of)
        found[kind + of.removeprefix(name)] = child["spec"], sorted(child["metadata"]["labels"])
        owners = child["metadata"].get("ownerReferences", [])
        assert [each["uid"] for each in owners] in ([], [stored["metadata"]["uid"]])
    for kind in ("serviceaccount", "rolebinding"):
        child = kubectl.get(kind, "dtjob-worker")
        assert child is not None, kind
        found[kind] = child["metadata"]["labels"]
    job_now = kubectl.get("dtjob", stored["metadata"]["name"])
    assert job_now is not None
    conditions = job_now["status"]["conditions"]
    found["conditions"] = [(each["type"], each["status"], each["reason"]) for each in conditions]
    found["events"] = sorted(
        (event["reason"], event["type"])
        for event in kubectl.list("events")
        if event["involvedObject"]["uid"] == stored["metadata"]["uid"]
    )
    text = repr(found).replace(name, "<child>").replace(stored["metadata"]["uid"], "<uid>")
    return {"text": text.replace(kubectl.namespace, "<namespace>")}


@pytest.mark.local_cluster
@pytest.mark.usefixtures("no_scheduler")
def test_a_kill_after_any_write_changes_nothing_in_the_end(
    start_operator: Start, proxy: ApiProxy, new_namespace: Callable[[], Kubectl]
) -> None:
    """For every k: SIGKILL after the k-th write of a start took effect, before it was answered."""
    process = start_operator()
    process.wait_until_ready()
    undisturbed: Manifest | None = None
    for k in itertools.count():
        namespace = new_namespace()
        start = len(proxy.writes())
        if k > 0:

            def kill(count: int, victim: OperatorProcess = process, at: int = start + k) -> None:
                if count == at:
                    victim.kill()

            proxy.after_write = kill
        namespace.apply(unplaced_job("digits"))
        if k > 0:
            wait_for(f"the kill after write {k}", partial(over, process, namespace), 180)
            if process.alive:
                proxy.settle()
            if process.alive:
                break  # the start took fewer writes than k
            proxy.after_write = lambda _count: None
            process = start_operator()
        started(namespace, "digits")
        wait_for("the claim", partial(has_claim, namespace), 120)
        proxy.settle()
        stored = namespace.get("dtjob", "digits")
        assert stored is not None
        end = outcome(namespace, stored)
        if undisturbed is None:
            undisturbed = end
        assert end == undisturbed, f"after write {k}"
    assert k > 5
    proxy.after_write = lambda _count: None
    process.terminate()


def has_claim(kubectl: Kubectl) -> bool:
    """Whether the coordinator has its one."""
    return len(kubectl.list("pvc")) == 1


def over(process: OperatorProcess, kubectl: Kubectl) -> bool:
    """Whether the operator is killed, or has done all that a start takes."""
    if not process.alive:
        return True
    return phase(kubectl, "digits") == "Starting" and has_claim(kubectl)


def test_the_api_server_away_and_back(
    start_operator: Start, proxy: ApiProxy, namespace: Kubectl, stored_job: StoredJob
) -> None:
    """The process lives, says that it isn't ready, and looks after what happened meanwhile."""
    process = start_operator()
    first = stored_job(unplaced_job("first"))
    started(namespace, "first")
    proxy.disconnect()
    try:
        wait_for("it says so", lambda: process.ready() != "ok", 60)
        stored_job(unplaced_job("second"))
        namespace("delete", "service", child_name(first))
        away = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < away:
            assert process.alive
            time.sleep(0.5)
        assert process.ready() != "ok"
    finally:
        proxy.connect()
    back = time.time()
    wait_for("it is ready", lambda: process.ready() == "ok", 60)
    wait_for("the service is back", lambda: namespace.get("service", child_name(first)), 60)
    wait_for("the new job starts", lambda: phase(namespace, "second") == "Starting", 60)
    assert standstill.ran(back, time.time()) < 20
    assert process.terminate() == 0


def test_what_is_deleted_during_an_outage_is_noticed(
    start_operator: Start, proxy: ApiProxy, namespace: Kubectl, stored_job: StoredJob
) -> None:
    """kopf never tells of it: a job of the same name comes up as if there had been none."""
    process = start_operator()
    process.wait_until_ready()
    stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    proxy.disconnect()
    wait_for("it says so", lambda: process.ready() != "ok", 60)
    namespace("delete", "dtjob", "digits")
    again = stored_job(unplaced_job("digits"))
    proxy.connect()
    wait_for("its set", lambda: namespace.get("statefulset", child_name(again)), 120)
    started(namespace, "digits")
    assert process.terminate() == 0


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_refusals_that_pass(
    start_operator: Start,
    proxy: ApiProxy,
    namespace: Kubectl,
    stored_job: StoredJob,
    status: int,
) -> None:
    """One request in four fails, of those about the job itself the first few."""
    process = start_operator()
    process.wait_until_ready()
    chance, refused = random.Random(status), itertools.count()

    def refuse(method: str, path: str) -> int | None:
        if chance.random() >= 0.25 or (status == 409 and method == "GET"):
            return None
        # The pause before the next try doubles each time.
        spared = namespace.namespace in path and next(refused) >= REFUSALS
        return None if spared else status

    proxy.refuse = refuse
    stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    proxy.refuse = lambda _method, _path: None
    wait_for("it is ready", lambda: process.ready() == "ok", 60)
    assert process.terminate() == 0


def test_broken_watches(
    start_operator: Start, proxy: ApiProxy, namespace: Kubectl, stored_job: StoredJob
) -> None:
    """Connections that break every half second while jobs come and go."""
    process = start_operator()
    process.wait_until_ready()
    for number in range(4):
        proxy.disconnect()
        stored_job(unplaced_job(f"job-{number}"))
        proxy.connect()
        time.sleep(0.5)
    for number in range(4):
        started(namespace, f"job-{number}")
    assert process.terminate() == 0


LATE_SECONDS = 3.0
# Of a namespace's first job to Starting, with a status of the plan where the job is seen late.
START_WRITES = 10


def late(plurals: list[str]) -> Callable[[str], float]:
    """A delay of the watches of these kinds; of all where none is named."""
    return lambda path: LATE_SECONDS if not plurals or path.rsplit("/", 1)[1] in plurals else 0.0


@pytest.mark.local_cluster
@pytest.mark.usefixtures("no_scheduler")
@pytest.mark.parametrize(
    ("copies", "plurals"),
    [
        (2, ["none"]),
        (1, []),
        (1, ["privacyledgers"]),
        (1, ["statefulsets", "pods"]),
        (2, ["distributedtrainingjobs"]),
    ],
    ids=["twice", "late", "late ledgers", "late sets", "twice and late jobs"],
)
def test_events_that_come_twice_or_late_change_nothing(
    start_operator: Start,
    proxy: ApiProxy,
    namespace: Kubectl,
    stored_job: StoredJob,
    copies: int,
    plurals: list[str],
) -> None:
    """No child is made twice, no loss is seen where there is none, and nothing more is written."""
    proxy.copies, proxy.delay = copies, late(plurals)
    process = start_operator()
    process.wait_until_ready()
    before = len(proxy.writes())
    stored = stored_job(unplaced_job("digits"))
    started(namespace, "digits")
    wait_for("the claim", partial(has_claim, namespace), 120)
    proxy.settle()
    time.sleep(2 * LATE_SECONDS)
    written = [each for each in proxy.writes()[before:] if each.namespace == namespace.namespace]
    told = [f"{each.verb} {each.resource} {each.name}" for each in written]
    assert len(told) <= START_WRITES, "\n".join(told)
    end = outcome(namespace, stored)["text"]
    assert "Missing" not in end
    assert "Lost" not in end
    namespace("delete", "service", child_name(stored), "--wait=false")
    wait_for("the service is back", lambda: namespace.get("service", child_name(stored)), 60)
    proxy.settle()
    time.sleep(LATE_SECONDS)
    assert outcome(namespace, stored)["text"] == end
    assert process.terminate() == 0


DEEP = 9000
"""Levels of JSON; the API server takes 10,000, and Python by itself about a thousand."""


def test_a_job_that_is_nested_too_deep_hides_no_other(
    start_operator: Start, namespace: Kubectl, stored_job: StoredJob, tmp_path: Path
) -> None:
    """It arrives by a watch first, and by a list at the next start."""
    process = start_operator()
    process.wait_until_ready()
    text = json.dumps(unplaced_job("deep", training={"steps": 1, "args": {"a": "HERE"}}))
    file = tmp_path / "deep.json"
    file.write_text(text.replace('"HERE"', "[" * DEEP + "]" * DEEP))
    path = f"/apis/dtjob.dev/v1alpha1/namespaces/{namespace.namespace}/distributedtrainingjobs"
    namespace("create", "--raw", path, f"--filename={file}")
    stored_job(unplaced_job("first"))
    started(namespace, "first")
    assert process.terminate() == 0
    process = start_operator()
    process.wait_until_ready()
    stored_job(unplaced_job("second"))
    started(namespace, "second")
    ended = '-o=jsonpath={.status.conditions[?(@.type=="Failed")].reason}'
    wait_for("it is refused", lambda: namespace("get", "dtjob", "deep", ended), 60)
    assert namespace("get", "dtjob", "deep", ended) == "ArgsTooLarge"
    assert process.terminate() == 0
