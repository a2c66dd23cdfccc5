"""A job in pods: its manifest, its course as a watch reports it, and the oracle of every fault."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from dtjob_api.wire import positions
from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from tests.support.builders import new_job
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Found, Kubectl, wait_for
from tests.support.tasks import witness_task

_TASK_FOLDER = "/opt/task"
_WITNESS = "witness"
_IMAGE_FOLDER = "/opt/dtjob/app"


def slow_job(
    name: str, image: str, *, steps: int, seconds: float, **privacy: Any
) -> list[Manifest]:
    """Digits by two workers, each step `seconds` long at least; first what their task needs.

    Keyword arguments replace parts of `privacy`.
    """
    code = Path(witness_task.__file__).read_text()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "task"}}
    template = {
        "env": [{"name": "PYTHONPATH", "value": f"{_IMAGE_FOLDER}:{_TASK_FOLDER}"}],
        "volumes": [
            {"name": "task", "configMap": {"name": "task"}},
            {"name": "witness", "persistentVolumeClaim": {"claimName": _WITNESS}},
        ],
        "volumeMounts": [
            {"name": "task", "mountPath": _TASK_FOLDER, "readOnly": True},
            {"name": "witness", "mountPath": str(witness_task.RECORDS)},
        ],
    }
    manifest = new_job(
        name,
        image=image,
        workers={
            "replicas": 2,
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "2Gi"}},
            "template": template,
        },
        training={"entrypoint": "witness_task:task", "args": {"seconds": seconds}, "steps": steps},
    )
    manifest["spec"]["privacy"] |= privacy
    return [config | {"data": {"witness_task.py": code}}, _witness_claim(), manifest]


def _witness_claim() -> Manifest:
    """For what all workers write down: only the coordinator has a volume of its own."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _WITNESS},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }


def standin_job(
    name: str, image: str, *, steps: int, script: dict[str, Any], **privacy: Any
) -> Manifest:
    """A job of two stand-ins in pods; keyword arguments replace parts of `privacy`."""
    manifest = new_job(
        name,
        image=image,
        workers={"replicas": 2, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}},
        training={"entrypoint": "standin.script:task", "args": script, "steps": steps},
    )
    manifest["spec"]["privacy"] |= privacy
    return manifest


@dataclass(frozen=True)
class Batch:
    """One use of private data, as the task wrote it down."""

    process: str
    time: float
    records: str


@dataclass(frozen=True)
class Job:
    """A job that was applied.

    Parameters
    ----------
    kubectl
        In the job's namespace.
    """

    installed: Installed
    kubectl: Kubectl
    name: str
    uid: str

    @classmethod
    def apply(cls, installed: Installed, kubectl: Kubectl, *manifests: Manifest) -> Job:
        """Apply manifests; the last one is the job's."""
        kubectl.apply(*manifests)
        name = manifests[-1]["metadata"]["name"]
        stored = kubectl.get("dtjob", name)
        assert stored is not None
        return cls(installed, kubectl, name, stored["metadata"]["uid"])

    @property
    def child(self) -> str:
        """The name of the coordinator's StatefulSet, of Service and ledger."""
        return f"{self.name}-{self.uid[:8]}"

    def pod_name(self, position: int) -> str:
        """The name of a worker pod."""
        return positions.pod_name(self.child, position)

    @property
    def claim(self) -> str:
        """The name of the checkpoint claim."""
        return f"checkpoints-{self.pod_name(0)}"

    def stored(self) -> Manifest:
        """The job as it is."""
        found = self.kubectl.get("dtjob", self.name)
        assert found is not None
        return found

    def phase(self) -> str | None:
        """Its phase."""
        phase: str | None = self.stored().get("status", {}).get("phase")
        return phase

    def condition(self, kind: str) -> Manifest:
        """One of its conditions, {} if it has none of the type."""
        conditions = self.stored().get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def events(self) -> list[tuple[str, str]]:
        """Type and reason of the events about the job itself."""
        return [
            (event["type"], event["reason"])
            for event in self.kubectl.list("events")
            if event["involvedObject"]["uid"] == self.uid
        ]

    def ledger(self) -> Manifest:
        """Its ledger."""
        found = self.kubectl.get("privacyledger", self.child)
        assert found is not None
        return found

    def ledger_status(self) -> Manifest:
        """The status of its ledger, {} before there is one."""
        found = self.kubectl.get("privacyledger", self.child)
        status: Manifest = (found or {}).get("status", {})
        return status

    def pod(self, position: int) -> Manifest:
        """A worker pod."""
        found = self.kubectl.get("pod", self.pod_name(position))
        assert found is not None
        return found

    def report(self) -> Manifest | None:
        """The coordinator's report from its own address; None while it has none."""
        address = self.pod(0)["status"].get("podIP")
        return report_of(address) if address else None

    def until(
        self, what: str, look: Callable[[], Found | None], timeout: float, at_most: float = 1.0
    ) -> Found:
        """Wait for a condition as `wait_for` does; a failure shows how the job and its pods are."""
        try:
            return wait_for(f"{self.name}: {what}", look, timeout, at_most=at_most)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.described()}") from None

    def until_step(self, step: int, attempt: int = 1, timeout: float = 400) -> Manifest:
        """Wait for an attempt to have done a step, by the account that covers it."""

        def done() -> Manifest | None:
            status = self.ledger_status()
            lease = status.get("lease") or {}
            reached = lease.get("attempt", 0) >= attempt and lease.get("fromStep", 0) >= step
            return status if reached else None

        return self.until(f"step {step} of attempt {attempt}", done, timeout)

    def until_next_lease(self) -> int:
        """Wait until it takes its next lease; the attempt that trains."""
        account = self.ledger_status()
        step = (account.get("checkpoint") or {}).get("step", 0)
        attempt: int = self.until_step(step + 1, max(1, account.get("attempt", 0)))["attempt"]
        return attempt

    def hurry(self) -> None:
        """Let a slow job do the rest of its steps as fast as it can."""
        path = str(witness_task.RECORDS / witness_task.HURRY)
        self.kubectl("exec", self.pod_name(0), "--", "touch", path)

    def until_succeeded(self, timeout: float = 600) -> Manifest:
        """Wait for its end and return the job."""

        def ended() -> Manifest | None:
            found = self.stored()
            return (
                found if found.get("status", {}).get("phase") in ("Succeeded", "Failed") else None
            )

        found = self.until("its end", ended, timeout)
        assert found["status"]["phase"] == "Succeeded", self.described()
        return found

    def batches(self, position: int) -> list[Batch]:
        """What the task of one worker saw of the private data."""
        path = witness_task.record(self.pod_name(position))
        text = self.installed.read_volume(self.kubectl, _WITNESS, path)
        return [Batch(**json.loads(line)) for line in text.splitlines() if line.endswith("}")]

    def draws(self) -> list[int]:
        """The draws that were given to the coordinator, of a job of stand-ins."""
        text = self.installed.read_volume(self.kubectl, self.claim, "draws.jsonl")
        return [json.loads(line)["draw"] for line in text.splitlines()]

    def described(self) -> str:
        """All there is to know when a test fails."""
        parts = [
            self.kubectl("describe", "dtjob", self.name),
            json.dumps(self.ledger_status(), indent=1),
        ]
        parts.append(self.kubectl("get", "pods,statefulsets", "--output=wide"))
        for pod in self.kubectl.list("pods"):
            name = pod["metadata"]["name"]
            done = subprocess.run(
                [
                    *(str(self.kubectl.program), f"--kubeconfig={self.kubectl.kubeconfig}"),
                    *(f"--namespace={self.kubectl.namespace}", "logs", name, "--tail=15"),
                ],
                check=False,
                capture_output=True,
                text=True,
            )
            parts.append(f"--- {name}\n{done.stdout}{done.stderr}")
        return "\n".join(parts)


def container_restarts(pod: Manifest) -> int:
    """How often its container was started again."""
    count: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return count


def report_of(address: str) -> Manifest | None:
    """What a coordinator at this address reports; None if it gives no answer."""
    import httpx

    try:
        url = f"http://{address}:{HTTP_PORT}{REPORT_PATH}"
        answer: Manifest = httpx.get(url, timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return None
    return answer


@dataclass
class Course:
    """Every version of a job and of its ledger that a watch reported."""

    jobs: list[Manifest] = field(default_factory=list)
    ledgers: list[Manifest] = field(default_factory=list)

    def phases(self) -> list[str]:
        """The job's phases in order, each once in a row."""
        found: list[str] = []
        for job in self.jobs:
            phase = job.get("status", {}).get("phase")
            if phase and found[-1:] != [phase]:
                found.append(phase)
        return found

    def assert_monotone(self) -> None:
        """Rule 13: neither epsilon nor the draws charged ever go down."""
        spent = [job.get("status", {}).get("privacy", {}) for job in self.jobs]
        epsilons = [Decimal(each["epsilonSpent"]) for each in spent if "epsilonSpent" in each]
        assert epsilons == sorted(epsilons)
        shown = [each["drawsCharged"] for each in spent if "drawsCharged" in each]
        assert shown == sorted(shown)
        charged = [each.get("status", {}).get("charged", 0) for each in self.ledgers]
        assert charged == sorted(charged)
        assert charged


def version_now(kubectl: Kubectl) -> str:
    """The version of the cluster from which a watch reports all that comes after now."""
    path = f"/apis/dtjob.dev/v1alpha1/namespaces/{kubectl.namespace}/distributedtrainingjobs"
    version: str = json.loads(kubectl("get", "--raw", path))["metadata"]["resourceVersion"]
    return version


@contextmanager
def watched(job: Job, since: str | None = None) -> Iterator[Course]:
    """Follow a job and its ledger; a watch that breaks goes on where it was.

    Parameters
    ----------
    since
        From `version_now` before the job was applied, for a course from the very beginning.
    """
    course, ended = Course(), threading.Event()
    running: dict[str, subprocess.Popen[str]] = {}

    def follow(plural: str, name: str, found: list[Manifest]) -> None:
        path = f"/apis/dtjob.dev/v1alpha1/namespaces/{job.kubectl.namespace}/{plural}"
        path += f"?watch=1&fieldSelector=metadata.name={name}"
        argv = [str(job.kubectl.program), f"--kubeconfig={job.kubectl.kubeconfig}"]
        version = since
        while not ended.wait(0.2):
            begin = f"&resourceVersion={version}" if version else ""
            with subprocess.Popen(
                [*argv, "get", "--raw", path + begin],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process:
                running[plural] = process
                for line in process.stdout or ():
                    try:
                        event = json.loads(line)
                    except ValueError:  # cut off in the middle by an outage
                        process.kill()
                        break
                    if event["type"] == "ERROR":  # the version is too old by now
                        version = None
                        process.kill()
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED"):
                        found.append(event["object"])

    threads = [
        threading.Thread(target=follow, args=arguments, daemon=True)
        for arguments in (
            ("distributedtrainingjobs", job.name, course.jobs),
            ("privacyledgers", job.child, course.ledgers),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        yield course
    finally:
        ended.set()
        while any(thread.is_alive() for thread in threads):
            for process in list(running.values()):
                process.kill()
            time.sleep(0.05)


def assert_true_account(job: Job, course: Course) -> None:
    """Rules 1, 2, 10 and 13 for a job that has ended: whatever happened, its figures are true."""
    _assert_true_figures(job, course)
    steps, charged = job.ledger()["spec"]["plan"]["steps"], job.ledger_status()["charged"]
    for position in range(2):
        batches = job.batches(position)
        assert steps <= len(batches) <= charged, f"worker {position}"
        assert len({batch.records for batch in batches}) == len(batches), "a draw came twice"


def assert_played_account(job: Job, course: Course) -> None:
    """The same for a job of stand-ins, whose coordinator wrote down which draws it was given."""
    _assert_true_figures(job, course)
    draws, charged = job.draws(), job.ledger_status()["charged"]
    assert job.ledger()["spec"]["plan"]["steps"] <= len(draws)
    assert len(set(draws)) == len(draws), "a draw came twice"
    assert max(draws) < charged


def _assert_true_figures(job: Job, course: Course) -> None:
    ended, account = job.stored()["status"], job.ledger_status()
    assert account["outcome"]["reason"] == "Completed", job.described()
    assert account["checkpoint"]["step"] == job.ledger()["spec"]["plan"]["steps"]
    assert ended["phase"] == "Succeeded"
    assert ended["privacy"]["drawsCharged"] == account["charged"]
    assert Decimal(ended["privacy"]["epsilonSpent"]) <= Decimal(ended["privacy"]["epsilonTarget"])
    course.assert_monotone()
