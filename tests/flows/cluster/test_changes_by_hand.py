"""What people change by hand of a job's children, while the operator sees it and while it is away.

Stand-ins in real pods. One job goes through it all, one change after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl
from tests.support.jobs.enduring_job import SECONDS_PER_STEP, Enduring
from tests.support.jobs.pod_jobs import Job, standin_job

pytestmark = [
    pytest.mark.faults,
    pytest.mark.cluster,
    pytest.mark.local_cluster,
    pytest.mark.timeout(600),
]

STEPS = 3000
CHILDREN = ["service", "networkpolicy", "poddisruptionbudget", "statefulset", "statefulset/-w"]
LABELS = ["dtjob.dev/job", "dtjob.dev/job-uid", "dtjob.dev/role"]
# Longer than a StatefulSet takes to make pods and their supervisors to say hello.
AWAY_SECONDS = 20


@pytest.fixture(scope="module")
def enduring(standins: Installed, new_namespace: Callable[[], Kubectl]) -> Iterator[Enduring]:
    """A job that is there long enough for every test here."""
    script = {"secondsPerStep": SECONDS_PER_STEP}
    manifest = standin_job("by-hand", standins.worker_image, steps=STEPS, script=script)
    with Enduring.through(standins, new_namespace(), manifest) as enduring:
        yield enduring


def without(labels: list[str]) -> list[str]:
    return [f"{label}-" for label in labels]


@pytest.mark.parametrize("which", CHILDREN)
def test_a_child_that_loses_its_labels_gets_them_back(enduring: Enduring, which: str) -> None:
    attempt, job = enduring.training(), enduring.job
    kind, _, suffix = which.partition("/")
    before = job.kubectl.get(kind, job.child + suffix)
    assert before is not None
    job.kubectl("label", kind, job.child + suffix, *without(LABELS))

    def labelled() -> bool:
        found = job.kubectl.get(kind, job.child + suffix)
        assert found is not None
        assert found["metadata"]["uid"] == before["metadata"]["uid"]
        return bool(found["metadata"].get("labels") == before["metadata"]["labels"])

    job.until("its labels are back", labelled, 30)
    assert enduring.training() == attempt
    assert ("Warning", "NameConflict") not in job.events()


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("label", LABELS)
def test_a_worker_that_loses_a_label_trains_on(
    enduring: Enduring, position: int, label: str
) -> None:
    attempt, job = enduring.training(), enduring.job
    pod = job.pod(position)
    value = pod["metadata"]["labels"][label]
    job.kubectl("label", "pod", job.pod_name(position), *without([label]))
    job.until(
        "it is shown",
        lambda: job.condition("ResourcesReady").get("reason") == "WorkerUnlabelled",
        60,
    )
    assert f"{label}={value}" in job.condition("ResourcesReady")["message"]
    assert enduring.training() == attempt
    assert job.phase() == "Running"
    job.kubectl("label", "pod", job.pod_name(position), f"{label}={value}")
    job.until("it is well", lambda: job.condition("ResourcesReady").get("status") == "True", 60)
    assert enduring.training() == attempt
    assert job.pod(position)["metadata"]["uid"] == pod["metadata"]["uid"]


def scaled(job: Job, coordinators: int, workers: int) -> None:
    job.kubectl("scale", "statefulset", job.child, f"--replicas={coordinators}")
    job.kubectl("scale", "statefulset", f"{job.child}-w", f"--replicas={workers}")


def sizes(job: Job) -> list[int]:
    sets = [job.kubectl.get("statefulset", job.child + suffix) for suffix in ("", "-w")]
    return [each["spec"]["replicas"] for each in sets if each is not None]


@pytest.mark.parametrize(("coordinators", "workers"), [(2, 1), (1, 3), (2, 3)])
def test_a_gang_that_is_scaled_up_while_the_operator_is_away_trains_on(
    enduring: Enduring, coordinators: int, workers: int
) -> None:
    attempt, job = enduring.training(), enduring.job
    with job.installed.without_operator():
        scaled(job, coordinators, workers)
        job.until(
            "pods for all", lambda: len(job.kubectl.list("pods")) == coordinators + workers, 60
        )
        time.sleep(AWAY_SECONDS)
        assert enduring.training() == attempt
    job.until("it is put right", lambda: sizes(job) == [1, 1], 60)
    job.until("the others go", lambda: len(job.kubectl.list("pods")) == 2, 120)
    assert enduring.training() == attempt


def test_a_gang_that_is_scaled_down_while_the_operator_is_away_comes_back(
    enduring: Enduring,
) -> None:
    attempt, job = enduring.training(), enduring.job
    with job.installed.without_operator():
        scaled(job, 0, 3)
        job.until("no coordinator", lambda: job.kubectl.get("pod", job.pod_name(0)) is None, 120)
        time.sleep(AWAY_SECONDS)
    job.until("it is put right", lambda: sizes(job) == [1, 1], 60)
    assert enduring.training() == attempt + 1
    job.until("the others go", lambda: len(job.kubectl.list("pods")) == 2, 120)
    assert enduring.training() == attempt + 1
