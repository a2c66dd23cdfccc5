"""Faults around workers that are well: what they are to the operator does not depend on training.

Stand-ins in real pods. One job goes through most of it, one after the other.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, ready, wait_for, wait_until_gone
from tests.support.jobs.enduring_job import LEASE, SECONDS_PER_STEP, Enduring, local
from tests.support.jobs.pod_jobs import (
    Job,
    assert_played_account,
    container_restarts,
    report_of,
    standin_job,
    watched,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.cluster,
    pytest.mark.local_cluster,
    pytest.mark.timeout(900),
]

BACK_SECONDS = 5
OUTAGE_SECONDS = 60
STEPS = 3000
SLOW_CLUSTER = {"Unschedulable", "ClaimUnbound", "MountFailed"}
"""Of Warnings that are right where a scheduler or a volume is many seconds late."""


@pytest.fixture(scope="module")
def enduring(standins: Installed, new_namespace: Callable[[], Kubectl]) -> Iterator[Enduring]:
    """A job that is there long enough for every test here."""
    script = {"secondsPerStep": SECONDS_PER_STEP}
    manifest = standin_job("enduring", standins.worker_image, steps=STEPS, script=script)
    with Enduring.through(standins, new_namespace(), manifest) as enduring:
        yield enduring


@pytest.mark.parametrize("kind", ["service", "serviceaccount", "rolebinding", "statefulset"])
def test_a_child_is_deleted(enduring: Enduring, kind: str) -> None:
    """It is back within seconds, and the job goes on."""
    enduring.training()
    job = enduring.job
    name = "dtjob-worker" if kind in ("serviceaccount", "rolebinding") else job.child
    before = job.kubectl.get(kind, name)
    assert before is not None
    job.kubectl("delete", kind, name, "--wait=false")

    def back() -> bool:
        found = job.kubectl.get(kind, name)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    job.until(f"the {kind} is back", back, BACK_SECONDS, at_most=0.5)
    charged = job.ledger_status()["charged"]
    job.until("it goes on", lambda: job.ledger_status()["charged"] > charged, 120)
    enduring.training()


def test_the_ledger_can_not_be_deleted(enduring: Enduring) -> None:
    enduring.training()
    job = enduring.job
    refusal = job.kubectl("delete", "privacyledger", job.child, fails=True)
    assert "never deleted" in refusal


def trains_as(enduring: Enduring, attempt: int) -> bool:
    return enduring.training() == attempt


def has_pods(job: Job, count: int) -> bool:
    return len(job.kubectl.list("pods")) == count


def test_another_number_of_replicas(enduring: Enduring) -> None:
    """One attempt more each time; no draw is lost, as the account at the end has it."""
    attempt = enduring.training()
    job = enduring.job
    for replicas in (3, 2):
        job.kubectl("scale", "dtjob", job.name, f"--replicas={replicas}")
        attempt += 1
        wait_for("the next attempt", partial(trains_as, enduring, attempt), 120)
        last = job.ledger_status()["attempts"][-1]
        assert last["workers"] == replicas
        job.until("its pods", partial(has_pods, job, replicas), 60)


def test_it_is_suspended_and_resumed(enduring: Enduring) -> None:
    attempt = enduring.training()
    job = enduring.job
    for suspend in ("true", "false"):
        change = f'--patch={{"spec":{{"suspend":{suspend}}}}}'
        job.kubectl("patch", "dtjob", job.name, "--type=merge", change)
        if suspend == "true":
            wait = "--for=condition=Suspended"
            job.kubectl("wait", "dtjob", job.name, wait, "--timeout=60s")
            assert not job.kubectl.list("pods")
    assert enduring.training() == attempt + 1
    assert job.ledger_status()["attempts"][-2]["reason"] == "Stopped"


def test_the_api_server_is_away_for_a_minute(enduring: Enduring) -> None:
    """Training goes on inside its lease, waits for the next one, and goes on. Nobody restarts."""
    attempt = enduring.training()
    job, provider = enduring.job, enduring.provider
    address = job.pod(0)["status"]["podIP"]
    restarts = restart_counts(job)
    operators = restarts_of(job.installed.operator_pods())
    before = wait_for("a report", lambda: report_of(address), 60)
    provider.stop_component("kube-apiserver")
    try:
        away = time.monotonic()
        steps = [(0.0, before["step"])]
        while (now := time.monotonic() - away) < OUTAGE_SECONDS:
            # One answer may be late on a busy machine.
            if (said := report_of(address)) is not None:
                steps.append((now, said["step"]))
            assert now - steps[-1][0] < 30, "the coordinator gives no answer"
            time.sleep(0.5)
    finally:
        provider.start_component("kube-apiserver")
    last = steps[-1][1]
    late = next(step for at, step in steps if at >= 0.75 * OUTAGE_SECONDS)
    assert before["step"] < last == late <= before["step"] + 2 * LEASE

    def goes_on() -> bool:
        said = report_of(address)
        return said is not None and said["step"] > last + LEASE

    job.until("training goes on", goes_on, 240)
    assert enduring.training() == attempt
    assert restart_counts(job) == restarts
    assert restarts_of(job.installed.operator_pods()) == operators
    job.until("the status is fresh", lambda: job.phase() == "Running", 120)


def restart_counts(job: Job) -> dict[str, int]:
    """Container restarts by pod."""
    return restarts_of(job.kubectl.list("pods"))


def restarts_of(pods: list[Manifest]) -> dict[str, int]:
    return {pod["metadata"]["uid"]: container_restarts(pod) for pod in pods}


def test_the_operator_is_killed_at_random_points(standins: Installed, namespace: Kubectl) -> None:
    """From the first second to the end; fixed seed."""
    steps = 120  # enough for three kills on a machine with nothing else to do
    chance, ended = random.Random(5), threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        killed: set[str] = set()

        def started() -> bool:
            pods = standins.operator_pods()
            return any(ready(pod) and pod["metadata"]["uid"] not in killed for pod in pods)

        while not ended.wait(chance.uniform(1, 8)):
            killed |= {pod["metadata"]["uid"] for pod in standins.operator_pods()}
            standins.kill_operator(local(standins))
            kills += 1
            if kills % 2 == 0:  # on a slow machine it would never come to work otherwise
                wait_for("an operator again", lambda: ended.is_set() or started(), 300)
                ended.wait(chance.uniform(0, 3))

    script = {"secondsPerStep": SECONDS_PER_STEP}
    manifest = standin_job("unattended", standins.worker_image, steps=steps, script=script)
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        try:
            job = Job.apply(standins, namespace, manifest)
            with watched(job) as course:
                job.until(
                    "its outcome", lambda: killer.done() or "outcome" in job.ledger_status(), 600
                )
                ended.set()
                killer.result(120)
                job.until_succeeded()
                wait_for("no pods", lambda: not namespace.list("pods"), 120)
        finally:
            ended.set()
            killer.result(120)
            standins.wait_for_operator()
    assert kills >= 3
    assert_played_account(job, course)
    account = job.ledger_status()
    assert (account["attempt"], account["charged"]) == (1, steps)
    of_pods = ("statefulsets", "services", "networkpolicies", "poddisruptionbudgets")
    wait_for("nothing is left", lambda: not any(map(namespace.list, of_pods)), 120)
    told = sorted(event for event in job.events() if event[1] not in SLOW_CLUSTER)
    expected = [("Normal", "Completed"), ("Normal", "Training")]
    assert told == expected, job.described()


@pytest.mark.rule(11)
def test_the_volume_is_lost_and_the_job_is_made_anew(
    standins: Installed, namespace: Kubectl
) -> None:
    """No silent restart. And nothing of the old job is in a new one of its name."""
    script = {"secondsPerStep": SECONDS_PER_STEP}
    manifest = standin_job("digits", standins.worker_image, steps=500, script=script)
    job = Job.apply(standins, namespace, manifest)
    job.until_step(1)
    namespace("delete", "pvc", job.claim, "--wait=false")
    namespace("delete", "pod", job.pod_name(0), "--wait=false")

    def lost() -> bool:
        """Said by the operator, then by the worker that finds the volume made anew and empty."""
        said = job.condition("Running")
        return said.get("reason") == "CheckpointLost" and "draws" in said["message"]

    job.until("a condition says so", lost, 240)
    told = {("Warning", "CheckpointLost"), ("Normal", "CheckpointLost")}
    job.until("an event says so", lambda: told & set(job.events()), 60)
    charged = job.ledger_status()["charged"]
    time.sleep(2)
    assert job.ledger_status()["charged"] == charged

    with standins.without_operator():
        namespace("delete", "dtjob", job.name, "--timeout=120s")
        again = Job.apply(standins, namespace, manifest)
        assert again.child != job.child
    again.until("its own children", lambda: namespace.get("statefulset", again.child), 120)
    own = again.ledger_status().get("charged", 0)  # before the waits: it may train by then
    for kind in ("statefulset", "service"):
        wait_until_gone(namespace, kind, job.child, 120)
        child = namespace.get(kind, again.child)
        assert child is not None
        assert [each["uid"] for each in child["metadata"]["ownerReferences"]] == [again.uid]
    assert job.ledger_status()["charged"] == charged
    assert own == 0
    claims = {claim["metadata"]["name"] for claim in namespace.list("pvc")}
    assert claims == {job.claim, again.claim}
    namespace("delete", "dtjob", again.name)
