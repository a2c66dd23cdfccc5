"""Jobs that are suspended, resumed, made larger and smaller while they train, by played workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

STEPS = 120
SLOWER = {"script": {"secondsPerStep": 0.5}}
JOBS: dict[str, dict[str, Any]] = {
    "suspended": {},
    "made-suspended": {"suspend": True},
    "flipped": {},
    "grown": {"workers": {"replicas": 1}},
    "shrunk": {"workers": {"replicas": 3}},
    "unplaced": SLOWER,
    "fails-to-grow": {
        "script": {
            "faults": [
                {
                    "do": "Refuse",
                    "rank": 2,
                    "attempt": 2,
                    "reason": "GpuMissing",
                    "message": "no GPU",
                }
            ]
        }
    },
}
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"pods": "2"}},
}


def slow_job(name: str, label: str, **changes: Any) -> Any:
    """A job of half a minute; `workers` are merged with what a played one needs."""
    script = {"secondsPerStep": 0.2} | changes.pop("script", {})
    workers = changes.pop("workers", {})
    job = played_job(name, label, script, checkpoint={"everySteps": 5}, **changes)
    job["spec"]["training"]["steps"] = STEPS
    job["spec"]["workers"] |= workers
    return job


def flip(job: Played) -> None:
    """Suspend and resume it again and again."""
    for suspend in (True, False, True, False, True, False):
        job.edit({"suspend": suspend})


def scale(replicas: int) -> Callable[[Played], Any]:
    """Ask for another number of workers."""
    return lambda job: job.kubectl("scale", "dtjob", job.name, f"--replicas={replicas}")


def scale_beyond_quota(job: Played) -> None:
    """Ask for more workers than the namespace lets in."""
    job.kubectl.apply(QUOTA)
    scale(4)(job)


def shrink(job: Played) -> None:
    """Ask for one worker, and see the others leave before it has ended."""
    scale(1)(job)
    job.until("pods that are too many are gone", lambda: job.pods() == {0})
    assert "outcome" not in job.ledger_status()


ASKED: dict[str, Callable[[Played], Any]] = {
    "suspended": lambda job: job.edit({"suspend": True}),
    "flipped": flip,
    "grown": scale(3),
    "shrunk": shrink,
    "unplaced": scale_beyond_quota,
    "fails-to-grow": scale(3),
}
"""What is asked of each job as soon as it trains."""


@pytest.fixture(scope="module")
def played(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> Iterator[dict[str, Played]]:
    """All of `JOBS`, in namespaces of their own, and of each was asked what is to be asked."""
    jobs = {
        name: Played(new_namespace(), player, slow_job("digits", player.label, **changes))
        for name, changes in JOBS.items()
    }

    def ask(name: str) -> None:
        trains(jobs[name])
        ASKED[name](jobs[name])

    with ThreadPoolExecutor(len(ASKED)) as side_by_side:
        list(side_by_side.map(ask, ASKED))
    yield jobs
    for job in jobs.values():
        job.kubectl("delete", "dtjob", job.name, "--wait=false")


def trains(job: Played) -> None:
    """Wait for a checkpoint."""
    job.until("a step is kept", lambda: job.ledger_status().get("checkpoint", {}).get("step"))


def ends_well(job: Played) -> None:
    """Every step was done, and no draw was charged, or made, more than once."""
    job.until_phase("Succeeded")
    account, draws = job.ledger_status(), job.draws()
    assert account["outcome"]["reason"] == "Completed"
    assert account["charged"] == STEPS
    assert sorted(draws) == list(range(STEPS))
    spent = job.status()["privacy"]
    assert spent["drawsCharged"] == spent["epsilonDraws"] == STEPS


def sizes(job: Played) -> list[int]:
    """Workers of its attempts."""
    return [each["workers"] for each in job.ledger_status()["attempts"]]


def test_a_suspended_job_gives_its_pods_back_and_goes_on(played: dict[str, Played]) -> None:
    job = played["suspended"]
    job.kubectl("wait", "dtjob", job.name, "--for=condition=Suspended", "--timeout=60s")
    assert job.pods() == set()
    status, account = job.status(), job.ledger_status()
    assert (status["phase"], status["workers"]["replicas"]) == ("Suspended", 0)
    assert account["attempts"][-1]["reason"] == "Stopped"
    assert account["drained"] == job.ledger()["spec"]["run"]["generation"] == 2
    # What was leased and not used is left to the next attempt.
    assert account["lease"]["closedAt"] == account["checkpoint"]["step"]
    job.edit({"suspend": False, "image": "example.invalid/another:1"})
    ends_well(job)
    assert [each["reason"] for each in job.ledger_status()["attempts"]] == ["Stopped", "Completed"]
    assert job.status().get("restarts", 0) == 0
    assert {"Suspending", "Suspended", "Resumed"} <= set(job.events())


def test_a_job_that_is_made_suspended_charges_nothing(played: dict[str, Played]) -> None:
    job = played["made-suspended"]
    job.until_phase("Suspended")
    assert job.pods() == set()
    assert job.ledger_status() == {}
    for kind in ("statefulsets", "services", "networkpolicies", "poddisruptionbudgets"):
        assert not job.kubectl.list(kind)
    job.edit({"suspend": False})
    ends_well(job)


def test_the_last_of_many_words_holds(played: dict[str, Played]) -> None:
    ends_well(played["flipped"])


def test_a_gang_grows_while_it_trains(played: dict[str, Played]) -> None:
    job = played["grown"]
    ends_well(job)
    assert sizes(job) == [1, 3]
    resized = job.condition("Resized")
    assert (resized["status"], resized["reason"]) == ("True", "Resized")
    assert {"AddingWorkers", "Resizing", "Resized"} <= set(job.events())


def test_a_gang_shrinks_while_it_trains(played: dict[str, Played]) -> None:
    job = played["shrunk"]
    ends_well(job)
    assert sizes(job) == [3, 1]


def test_a_number_that_finds_no_room_costs_no_training(played: dict[str, Played]) -> None:
    job = played["unplaced"]

    def says_why() -> bool:
        return "exceeded quota" in job.condition("Resized").get("message", "")

    job.until("the quota is named", says_why)
    charged = job.ledger_status()["charged"]
    assert job.condition("Running")["status"] == "True"
    job.until("it trains on", lambda: job.ledger_status()["charged"] > charged)
    scale(2)(job)
    job.until("all is as asked for", lambda: job.condition("Resized")["status"] == "True")
    ends_well(job)
    assert sizes(job) == [2]


def test_a_number_that_can_not_train_is_taken_back(played: dict[str, Played]) -> None:
    job = played["fails-to-grow"]
    ends_well(job)
    failed = job.condition("Resized")
    assert failed["reason"] == "ResizeFailed"
    assert "no GPU" in failed["message"]
    assert sizes(job) == [2, 3, 2]
