"""Random courses of jobs: whatever is asked and whatever breaks, the end is the same.

Many jobs side by side, each with a course of its own that its seed gives; workers are played. What
the coordinators were handed is recorded by themselves, and compared with what the ledgers charge.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dtjob_api.wire.positions import Role, set_name
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

STEPS, LEASE, RESERVE, MOST_WORKERS = 60, 3, 300, 4
ACTIONS = 8
SEEDS = range(8)
"""One job each."""
MORE_SEEDS = range(100, 150)
END_SECONDS = 240


def new_job(player: Player) -> dict[str, object]:
    """A job of twenty seconds that survives the loss of many leases."""
    job = played_job(
        "digits", player.label, {"secondsPerStep": 0.25}, checkpoint={"everySteps": LEASE}
    )
    job["spec"]["training"]["steps"] = STEPS
    job["spec"]["privacy"]["replayReserveSteps"] = RESERVE
    job["spec"]["runPolicy"] = {"maxRestarts": 19}
    return job


def scale(job: Played, chance: random.Random) -> None:
    job.kubectl("scale", "dtjob", job.name, f"--replicas={chance.randint(1, MOST_WORKERS)}")


def suspend(job: Played, chance: random.Random) -> None:
    job.edit({"suspend": chance.random() < 0.6})


def delete_a_pod(job: Played, chance: random.Random) -> None:
    if pods := sorted(job.pods()):
        name = job.pod(chance.choice(pods))
        force = ["--force", "--grace-period=0"] if chance.random() < 0.5 else ["--wait=false"]
        job.kubectl("delete", "pod", name, "--ignore-not-found", *force)


def delete_a_child(job: Played, chance: random.Random) -> None:
    kind = chance.choice(["service", "networkpolicy", "poddisruptionbudget", "statefulset"])
    job.kubectl("delete", kind, job.child, "--ignore-not-found", "--wait=false")


def scale_by_hand(job: Played, chance: random.Random) -> None:
    name = set_name(job.child, chance.choice(list(Role)))
    if job.kubectl.get("statefulset", name):
        job.kubectl("scale", "statefulset", name, f"--replicas={chance.randint(0, 3)}")


def strip_labels(job: Played, chance: random.Random) -> None:
    name = set_name(job.child, chance.choice(list(Role)))
    if job.kubectl.get("statefulset", name):
        job.kubectl("label", "statefulset", name, "dtjob.dev/job-uid-", "dtjob.dev/job-")


CHANGES = (
    scale,
    scale,
    suspend,
    suspend,
    delete_a_pod,
    delete_a_child,
    scale_by_hand,
    strip_labels,
)


def live_through(job: Played, seed: int) -> None:
    """A random course, after which the job is to go on with two workers."""
    chance = random.Random(seed)
    for _ in range(ACTIONS):
        time.sleep(chance.uniform(0, 2.5))
        chance.choice(CHANGES)(job, chance)
        if "outcome" in job.ledger_status():
            return
    job.edit({"suspend": False, "workers": {"replicas": 2}})


def assert_well(job: Played) -> None:
    """It has succeeded; no draw was handed out twice, and none that is not charged."""
    job.until_phase("Succeeded", END_SECONDS)
    account, draws = job.ledger_status(), job.draws()
    assert account["outcome"]["reason"] == "Completed"
    assert len(set(draws)) == len(draws) <= account["charged"]
    assert max(draws) < account["charged"] <= STEPS + RESERVE
    spent = job.status()["privacy"]
    assert spent["drawsCharged"] == spent["epsilonDraws"] == account["charged"]
    kinds = ("pods", "statefulsets", "services", "networkpolicies", "poddisruptionbudgets")
    job.until("nothing is left", lambda: not any(map(job.kubectl.list, kinds)))


def many(
    seeds: range, player: Player, new_namespace: Callable[[], Kubectl]
) -> Iterator[tuple[int, Played]]:
    """A job for each seed, after its course."""
    jobs = {seed: Played(new_namespace(), player, new_job(player)) for seed in seeds}
    with ThreadPoolExecutor(8) as side_by_side:
        list(side_by_side.map(live_through, jobs.values(), jobs))
    yield from jobs.items()


def test_the_end_is_the_same_whatever_happens(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> None:
    for _seed, job in many(SEEDS, player, new_namespace):
        assert_well(job)


@pytest.mark.nightly(minutes=12)
@pytest.mark.timeout(1500)
def test_the_end_is_the_same_whatever_happens_many_times(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> None:
    for first in range(MORE_SEEDS.start, MORE_SEEDS.stop, 10):
        for _seed, job in many(range(first, first + 10), player, new_namespace):
            assert_well(job)


@pytest.mark.faults
def test_an_operator_that_dies_again_and_again(
    start_operator: Callable[[], OperatorProcess],
    operator: OperatorProcess,
    player: Player,
    new_namespace: Callable[[], Kubectl],
) -> None:
    """The workers go on without it, and the next one takes up where it was."""
    operator.kill()  # the one of the tests before
    jobs = {seed: Played(new_namespace(), player, new_job(player)) for seed in range(50, 54)}
    chance = random.Random(50)
    with ThreadPoolExecutor(len(jobs)) as side_by_side:
        courses = [side_by_side.submit(live_through, job, seed) for seed, job in jobs.items()]
        while not all(course.done() for course in courses):
            mortal = start_operator()
            time.sleep(chance.uniform(2, 6))
            mortal.kill()
    start_operator().wait_until_ready()
    for course in courses:
        course.result()
    for job in jobs.values():
        assert_well(job)
