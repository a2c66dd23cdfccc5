"""Real kills, outages and repairs in pods: the promised steps, a true account, nothing shared.

One slow job goes through most of them, one after the other: what it ends with has to be right after
all of them together.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtjob_api.wire.well_known import HELLO_PORT, HTTP_PORT, STORE_PORT
from dtjob_cli.main import app
from localcluster.cluster.state import Process
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, unguarded
from tests.support.jobs.enduring_job import LEASE, SECONDS_PER_STEP, Enduring
from tests.support.jobs.pod_jobs import (
    Job,
    assert_true_account,
    container_restarts,
    slow_job,
    watched,
)
from tests.support.strangers.garbage import garbage, listeners, throw

pytestmark = [
    pytest.mark.faults,
    pytest.mark.cluster,
    pytest.mark.pods,
    pytest.mark.local_cluster,
    pytest.mark.timeout(1200),
]


STEPS = 1500
"""Five minutes of training at least; what is left in the end is computed at full speed."""

# Each restart imports torch twice. What kills one of the two is tried by day where it is told least
# directly: a rank of the pod that has no ledger, and the pod on which the other depends.
_AT_NIGHT = pytest.mark.nightly(minutes=4)
BY_DAY_A_FOLLOWERS = pytest.mark.parametrize(
    "position", [pytest.param(0, id="coordinator", marks=_AT_NIGHT), pytest.param(1, id="follower")]
)
BY_DAY_THE_COORDINATORS = pytest.mark.parametrize(
    "position", [pytest.param(0, id="coordinator"), pytest.param(1, id="follower", marks=_AT_NIGHT)]
)


class Training(Enduring):
    """The job that goes through it all, with ranks of its own."""

    def goes_on_after(self, attempt: int) -> Manifest:
        """Wait until a later attempt trains; the record of the one that ended."""
        self.job.until_step(1, attempt + 1)
        records = self.job.ledger_status()["attempts"]
        record: Manifest = next(each for each in records if each["attempt"] == attempt)
        return record

    def supervisor(self, position: int) -> Process:
        """PID 1 of a worker pod."""
        return self._process(position, 1)

    def rank(self, position: int) -> Process:
        """The only rank of a worker pod, whose number its supervisor's log tells."""
        lines = self.job.kubectl("logs", self.job.pod_name(position)).splitlines()
        started = [json.loads(line) for line in lines if '"ranks started"' in line]
        return self._process(position, started[-1]["pids"][str(position)])

    def _process(self, position: int, number: int) -> Process:
        pod = self.job.pod(position)["metadata"]["uid"]
        return next(p for p in self.provider.pod_processes(pod) if in_pod(p.pid) == number)


def in_pod(pid: int) -> int:
    """How its own PID namespace numbers a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


@pytest.fixture(scope="module")
def enduring(installed: Installed, new_namespace: Callable[[], Kubectl]) -> Iterator[Training]:
    """A job that is there long enough for every test here, and has reserve for all of them."""
    manifests = slow_job(
        "enduring",
        installed.worker_image,
        steps=STEPS,
        seconds=SECONDS_PER_STEP,
        replayReserveSteps=150,
    )
    with Training.through(installed, new_namespace(), *manifests) as enduring:
        yield enduring


@BY_DAY_A_FOLLOWERS
def test_a_rank_is_killed(enduring: Training, position: int) -> None:
    attempt = enduring.training()
    enduring.rank(position).kill()
    record = enduring.goes_on_after(attempt)
    assert (record["rank"], record["signal"]) == (position, signal.SIGKILL)
    assert record["reason"] == "RankFailed"


@BY_DAY_THE_COORDINATORS
def test_a_supervisor_is_killed(enduring: Training, position: int) -> None:
    """The container comes back in the same pod."""
    attempt = enduring.training()
    pod = enduring.job.pod(position)
    enduring.supervisor(position).kill()
    enduring.goes_on_after(attempt)
    restarts = container_restarts(pod) + 1  # the kubelet tells of it a moment later
    job = enduring.job
    job.until("it is told", lambda: container_restarts(job.pod(position)) >= restarts, 60)
    again = job.pod(position)
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert container_restarts(again) == restarts


@pytest.mark.rule(10)
@BY_DAY_THE_COORDINATORS
def test_a_pod_is_deleted(enduring: Training, position: int) -> None:
    """An orderly stop loses no leased draw, and the pod comes back."""
    attempt = enduring.training()
    job, before = enduring.job, enduring.job.pod(position)["metadata"]["uid"]
    lost = draws_lost(job)
    job.kubectl("delete", "pod", job.pod_name(position), "--wait=false")

    def back() -> bool:
        found = job.kubectl.get("pod", job.pod_name(position))
        return found is not None and found["metadata"]["uid"] != before

    # After a checkpoint and an orderly stop, which take what they take.
    job.until("the pod is back", back, 60)
    record = enduring.goes_on_after(attempt)
    assert record["reason"] == "Stopped", record
    assert draws_lost(job) == lost


def draws_lost(job: Job) -> int:
    """Draws charged that lead to no step: those of leases that a crash cut short."""
    account = job.ledger_status()
    lease = account["lease"]
    return int(account["charged"] - (lease["toDraw"] - lease["fromDraw"]) - lease["fromStep"])


@pytest.mark.nightly(minutes=4)
def test_garbage_at_every_port_of_a_pod(enduring: Training) -> None:
    """From beside it, where no policy forbids it: the attempt may end, and nothing else."""
    attempt = enduring.training()
    job = enduring.job
    listening = {
        position: listening_beside(enduring.supervisor(position).pid) for position in range(2)
    }
    assert {HTTP_PORT, HELLO_PORT, STORE_PORT} < listening[0], "gloo listens too"
    assert {HTTP_PORT} < listening[1], "gloo listens too"
    for words in garbage():
        for position, ports in listening.items():
            address = job.pod(position)["status"]["podIP"]
            for port in ports:
                throw(address, port, words)
    assert enduring.training() >= attempt
    drawn = {batch.records for batch in job.batches(0)}
    account = job.ledger_status()
    assert "outcome" not in account
    assert len(drawn) <= account["charged"]
    enduring.course.assert_monotone()


def listening_beside(pid: int) -> set[int]:
    """The TCP ports on which anybody listens in the network of a process, by IPv4 and IPv6."""
    tables = (Path(f"/proc/{pid}/net/{family}") for family in ("tcp", "tcp6"))
    return {port for table in tables for _, port, _ in listeners(table)}


def test_after_all_that_its_account_is_true(enduring: Training) -> None:
    enduring.training()
    enduring.job.hurry()
    enduring.job.until_succeeded()
    assert_true_account(enduring.job, enduring.course)


@pytest.mark.rule(11)
def test_the_ledger_comes_back_from_an_old_backup(
    installed: Installed, namespace: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained until an administrator raises it; no draw comes twice."""
    # More steps than are done before the policy lets go; in the end it may hurry.
    job = Job.apply(
        installed,
        namespace,
        *slow_job("old", installed.worker_image, steps=600, seconds=SECONDS_PER_STEP),
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
    found = job.ledger_status()
    assert found["charged"] == backup["status"]["charged"] < spent <= found["volume"]["charged"]

    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    monkeypatch.setenv("PATH", str(namespace.program.parent), prepend=os.pathsep)
    arguments = ["ledger", "restore", job.child, f"--namespace={namespace.namespace}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert job.ledger_status()["charged"] == found["volume"]["charged"] + LEASE
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
