"""Real kills, outages and repairs in pods: the promised steps, a true account, nothing shared.

One slow job goes through most of them, one after the other: what it ends with has to be right after
all of them together.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed import Installed
from jobs import Course, Job, assert_true_account, report_of, slow_job, watched
from kube import Kubectl, Manifest, ready, unguarded, wait_for
from typer.testing import CliRunner

from dtjob_cli.main import app
from localcluster.providers.local import LocalProvider
from localcluster.state import Process

pytestmark = [
    pytest.mark.faults,
    pytest.mark.cluster,
    pytest.mark.local_cluster,
    pytest.mark.timeout(1200),
]

BACK_SECONDS = 5
OUTAGE_SECONDS = 60
LEASE = 10
STEPS = 3000
SLOW_CLUSTER = {"Unschedulable", "ClaimUnbound", "MountFailed"}
"""Of Warnings that are right where a scheduler or a volume is many seconds late."""


@dataclass(frozen=True)
class Enduring:
    """The job that goes through it all."""

    job: Job
    course: Course
    provider: LocalProvider

    def training(self) -> int:
        """Wait until it takes its next lease; the attempt that trains."""
        account = self.job.account()
        step = (account.get("checkpoint") or {}).get("step", 0)
        newer = self.job.until_step(step + 1, max(1, account.get("attempt", 0)))
        attempt: int = newer["attempt"]
        return attempt

    def goes_on_after(self, attempt: int) -> Manifest:
        """Wait until a later attempt trains; the record of the one that ended."""
        self.job.until_step(1, attempt + 1)
        records = self.job.account()["attempts"]
        record: Manifest = next(each for each in records if each["attempt"] == attempt)
        return record

    def supervisor(self, ordinal: int) -> Process:
        """PID 1 of a worker pod."""
        return self._process(ordinal, 1)

    def rank(self, ordinal: int) -> Process:
        """The only rank of a worker pod, whose number its supervisor's log tells."""
        lines = self.job.kubectl("logs", self.job.pod_name(ordinal)).splitlines()
        started = [json.loads(line) for line in lines if '"ranks started"' in line]
        return self._process(ordinal, started[-1]["pids"][str(ordinal)])

    def _process(self, ordinal: int, number: int) -> Process:
        pod = self.job.pod(ordinal)["metadata"]["uid"]
        return next(p for p in self.provider.pod_processes(pod) if in_pod(p.pid) == number)


def in_pod(pid: int) -> int:
    """How its own PID namespace numbers a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


@pytest.fixture(scope="module")
def provider(installed: Installed) -> LocalProvider:
    """The way to the processes of pods."""
    assert isinstance(installed.cluster.provider, LocalProvider)
    return installed.cluster.provider


@pytest.fixture(scope="module")
def enduring(
    installed: Installed, provider: LocalProvider, new_namespace: Callable[[], Kubectl]
) -> Iterator[Enduring]:
    """A job that is there long enough for every test here, and has reserve for all of them."""
    manifests = slow_job(
        "enduring", installed.trainer_image, steps=STEPS, seconds=0.2, replayReserveSteps=150
    )
    manifests[-1]["spec"]["checkpoint"] = {"everySteps": LEASE}
    job = Job.apply(installed, new_namespace(), *manifests)
    with watched(job) as course:
        yield Enduring(job, course, provider)


@pytest.mark.parametrize("ordinal", [0, 1], ids=["coordinator", "follower"])
def test_a_rank_is_killed(enduring: Enduring, ordinal: int) -> None:
    attempt = enduring.training()
    enduring.rank(ordinal).kill()
    record = enduring.goes_on_after(attempt)
    assert (record["rank"], record["signal"]) == (ordinal, signal.SIGKILL)
    assert record["reason"] == "RankFailed"


@pytest.mark.parametrize("ordinal", [0, 1], ids=["coordinator", "follower"])
def test_a_supervisor_is_killed(enduring: Enduring, ordinal: int) -> None:
    """The container comes back in the same pod."""
    attempt = enduring.training()
    pod = enduring.job.pod(ordinal)
    enduring.supervisor(ordinal).kill()
    enduring.goes_on_after(attempt)
    restarts = container_restarts(pod) + 1  # the kubelet tells of it a moment later
    job = enduring.job
    job.until("it is told", lambda: container_restarts(job.pod(ordinal)) >= restarts, 60)
    again = job.pod(ordinal)
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert container_restarts(again) == restarts


@pytest.mark.parametrize("ordinal", [0, 1], ids=["coordinator", "follower"])
def test_a_pod_is_deleted(enduring: Enduring, ordinal: int) -> None:
    """Rule 10: an orderly stop loses no leased draw, and the pod comes back."""
    attempt = enduring.training()
    job, before = enduring.job, enduring.job.pod(ordinal)["metadata"]["uid"]
    lost = draws_lost(job)
    job.kubectl("delete", "pod", job.pod_name(ordinal), "--wait=false")

    def back() -> bool:
        found = job.kubectl.get("pod", job.pod_name(ordinal))
        return found is not None and found["metadata"]["uid"] != before

    # After a checkpoint and an orderly stop, which take what they take.
    job.until("the pod is back", back, 60)
    record = enduring.goes_on_after(attempt)
    assert record["reason"] in ("Stopped", "Drained"), record
    assert draws_lost(job) == lost


def draws_lost(job: Job) -> int:
    """Draws charged that lead to no step: those of leases that a crash cut short."""
    account = job.account()
    lease = account["lease"]
    return int(account["charged"] - (lease["toDraw"] - lease["fromDraw"]) - lease["fromStep"])


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
    charged = job.account()["charged"]
    job.until("it goes on", lambda: job.account()["charged"] > charged, 120)
    enduring.training()


def test_the_ledger_can_not_be_deleted(enduring: Enduring) -> None:
    enduring.training()
    job = enduring.job
    refusal = job.kubectl("delete", "privacyledger", job.child, fails=True)
    assert "never deleted" in refusal


def test_another_number_of_replicas_has_no_effect(enduring: Enduring) -> None:
    attempt = enduring.training()
    job = enduring.job
    change = '--patch={"spec":{"workers":{"replicas":3}}}'
    job.kubectl("patch", "dtjob", job.name, "--type=merge", change)
    job.until("an event says so", lambda: ("Warning", "ReplicasLatched") in job.events(), 60)
    assert enduring.training() == attempt
    assert len(job.kubectl.list("pods")) == 2
    assert job.ledger()["spec"]["run"]["workers"] == 2


def test_the_api_server_is_away_for_a_minute(enduring: Enduring) -> None:
    """Training goes on inside its lease, waits for the next one, and goes on. Nobody restarts."""
    attempt = enduring.training()
    job, provider = enduring.job, enduring.provider
    address = job.pod(0)["status"]["podIP"]
    restarts = restart_counts(job)
    (operator,) = job.installed.operator_pods()
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
    (same,) = job.installed.operator_pods()
    assert same["metadata"]["uid"] == operator["metadata"]["uid"]
    assert container_restarts(same) == container_restarts(operator)
    job.until("the status is fresh", lambda: job.phase() == "Running", 120)


def restart_counts(job: Job) -> dict[str, int]:
    """Container restarts by pod."""
    return {pod["metadata"]["uid"]: container_restarts(pod) for pod in job.kubectl.list("pods")}


def container_restarts(pod: Manifest) -> int:
    """How often its container was started again."""
    count: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return count


def test_after_all_that_its_account_is_true(enduring: Enduring) -> None:
    enduring.training()
    enduring.job.hurry()
    enduring.job.until_succeeded()
    assert_true_account(enduring.job, enduring.course)


def test_the_operator_is_killed_at_random_points(
    installed: Installed, provider: LocalProvider, namespace: Kubectl
) -> None:
    """From the first second to the end; fixed seed."""
    chance, ended = random.Random(5), threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        killed: set[str] = set()

        def started() -> bool:
            pods = installed.operator_pods()
            return any(ready(pod) and pod["metadata"]["uid"] not in killed for pod in pods)

        while not ended.wait(chance.uniform(1, 8)):
            killed |= {pod["metadata"]["uid"] for pod in installed.operator_pods()}
            installed.kill_operator(provider)
            kills += 1
            if kills % 2 == 0:  # on a slow machine it would never come to work otherwise
                wait_for("an operator again", lambda: ended.is_set() or started(), 300)
                ended.wait(chance.uniform(0, 3))

    manifests = slow_job("unattended", installed.trainer_image, steps=120, seconds=0.2)
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        try:
            job = Job.apply(installed, namespace, *manifests)
            with watched(job) as course:
                job.until("its outcome", lambda: killer.done() or "outcome" in job.account(), 600)
                ended.set()
                killer.result(120)
                job.until_succeeded()
                wait_for("no pods", lambda: not namespace.list("pods"), 120)
        finally:
            ended.set()
            killer.result(120)
            installed.wait_for_operator()
    assert kills >= 3
    assert_true_account(job, course)
    account = job.account()
    assert (account["attempt"], account["charged"]) == (1, 120)
    assert sorted(each["metadata"]["name"] for each in namespace.list("services")) == [job.child]
    assert sorted(event for event in job.events() if event[1] not in SLOW_CLUSTER) == [
        ("Normal", "Completed"),
        ("Normal", "Planned"),
        ("Normal", "Training"),
    ]


def test_the_volume_is_lost_and_the_job_is_made_anew(
    installed: Installed, namespace: Kubectl
) -> None:
    """Rule 11: no silent restart. And nothing of the old job is in a new one of its name."""
    manifests = slow_job("digits", installed.trainer_image, steps=500, seconds=0.2)
    job = Job.apply(installed, namespace, *manifests)
    job.until_step(1)
    namespace("delete", "pvc", job.claim(0), "--wait=false")
    namespace("delete", "pod", job.pod_name(0), "--wait=false")

    def lost() -> bool:
        """Said by the operator, then by the worker that finds the volume made anew and empty."""
        said = job.condition("Running")
        return said.get("reason") == "CheckpointLost" and "draws" in said["message"]

    job.until("a condition says so", lost, 240)
    told = {("Warning", "CheckpointLost"), ("Normal", "CheckpointLost")}
    job.until("an event says so", lambda: told & set(job.events()), 60)
    charged = job.account()["charged"]
    time.sleep(2)
    assert job.account()["charged"] == charged

    with installed.without_operator():
        namespace("delete", "dtjob", job.name, "--timeout=120s")
        again = Job.apply(installed, namespace, *manifests)
        assert again.child != job.child
    again.until("its own children", lambda: namespace.get("statefulset", again.child), 120)
    own = again.account().get("charged", 0)  # before the waits: it may train by then
    for kind in ("statefulset", "service"):
        wait_for("the old one goes", lambda k=kind: not namespace.get(k, job.child), 120)
        child = namespace.get(kind, again.child)
        assert child is not None
        assert [each["uid"] for each in child["metadata"]["ownerReferences"]] == [again.uid]
    assert job.account()["charged"] == charged
    assert own == 0
    claims = {claim["metadata"]["name"] for claim in namespace.list("pvc")}
    assert job.claim(1) in claims
    namespace("delete", "dtjob", again.name)


def test_the_ledger_comes_back_from_an_old_backup(
    installed: Installed, namespace: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 11: nothing is trained until an administrator raises it; no draw comes twice."""
    # More steps than are done before the policy lets go; in the end it may hurry.
    job = Job.apply(
        installed, namespace, *slow_job("old", installed.trainer_image, steps=600, seconds=0.2)
    )
    job.until_step(1)
    backup = job.ledger()
    spent = job.until_step(40)["charged"]
    with unguarded(namespace, backup):
        namespace("delete", "privacyledger", job.child)
        job.until("it is missed", lambda: reason(job) == "LedgerMissing", 120)
        put_back(namespace, backup)
    job.until("nothing is trained", lambda: reason(job) == "PrivacyStateLost", 240)
    assert "dtjob ledger restore" in job.condition("Running")["message"]
    found = job.account()
    assert found["charged"] == backup["status"]["charged"] < spent <= found["volume"]["charged"]

    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    monkeypatch.setenv("PATH", str(namespace.program.parent), prepend=os.pathsep)
    arguments = ["ledger", "restore", job.child, f"--namespace={namespace.namespace}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert job.account()["charged"] == found["volume"]["charged"] + LEASE
    with watched(job) as course:
        job.until_step(found["volume"]["checkpoint"]["step"], found["attempt"] + 1)
        job.hurry()
        job.until_succeeded()
    assert_true_account(job, course)


def reason(job: Job) -> str | None:
    """Why the job does not run."""
    found: str | None = job.condition("Running").get("reason")
    return found


def put_back(kubectl: Kubectl, backup: Manifest) -> None:
    """Restore a ledger as a backup tool does: the object, then its status."""
    kept = {key: backup["metadata"][key] for key in ("name", "labels")}
    kubectl.create({**backup, "metadata": kept})
    stored = kubectl.get("privacyledger", kept["name"])
    assert stored is not None
    status = {**stored, "status": backup["status"]}
    kubectl("replace", "--subresource=status", "--filename=-", stdin=json.dumps(status))
