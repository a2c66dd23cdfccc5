"""How often the figures of a job are written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dtjob_operator.terms.observed import Spent
from tests.support.worlds.world import (
    NOW,
    PLAN,
    World,
    claim,
    digits,
    pod,
    report,
    running,
    stamp,
    waiting_pod,
)


def test_telemetry_is_written_every_15_seconds_and_only_if_it_moves() -> None:
    world = running()
    world.see(report=report(1))
    world.settle()
    before = len(world.patches)
    for second in range(60):
        world.later(1)
        world.see(report=report(2 + second))
        world.reconcile()
    assert len(world.patches) - before == 4
    standing = len(world.patches)
    for _ in range(60):
        world.later(1)
        world.see(report=report(61, heartbeatTime=stamp(world.now)))
        world.reconcile()
    assert len(world.patches) <= standing + 1


def test_the_first_figures_are_written_at_once() -> None:
    world = running()
    assert world.decide().wake_after == 1.0
    world.later(1)
    world.see(report=report(3))
    world.reconcile()
    assert world.status["progress"]["step"] == 3
    assert world.decide().wake_after == 15.0


def test_a_clock_that_is_put_back_holds_up_no_figures() -> None:
    world = running()
    world.later(20)
    world.see(report=report(40))
    world.settle()
    world.later(-2 * 86400)
    world.see(report=report(60))
    world.settle()
    assert world.status["progress"]["step"] == 60


@pytest.mark.parametrize(("jobs", "writes"), [(1, 4), (150, 4), (300, 2), (600, 1)])
def test_all_running_jobs_together_write_ten_figures_a_second(jobs: int, writes: int) -> None:
    world = running()
    world.later(20)
    world.see(report=report(1), jobs_running=jobs)
    world.settle()
    before = len(world.patches)
    for second in range(60):
        world.later(1)
        world.see(report=report(10 + 5 * second))
        world.reconcile()
    assert len(world.patches) - before == writes


def gpu(mean: int, worst: int = 0, count: int = 2) -> dict[str, Any]:
    use = {"min": mean - 1, "mean": mean, "max": mean + 1}
    fields = {"memoryUsedBytes": 2**34 + mean, "memoryTotalBytes": 2**36, "worstRank": worst}
    return {"count": count, "utilizationPercent": use, **fields}


SMALL: dict[str, Any] = {"step": 101, "samplesPerSecond": 2600.0, "gpu": gpu(93, worst=1)}


@pytest.mark.parametrize(
    "move",
    [
        {"step": 106},
        {"samplesPerSecond": 2900.0},
        {"gpu": gpu(60)},
        {"gpu": gpu(90, count=1)},
        {"gpu": None},
        {"estimatedCompletionTime": stamp(NOW + timedelta(minutes=7))},
        {"evaluation": {"accuracy": 0.91}},
    ],
    ids=lambda move: next(iter(move)),
)
def test_of_figures_only_what_has_moved_enough_is_written(move: dict[str, Any]) -> None:
    """Steps by a percent, speed by a twentieth, an end by a minute, the use of GPUs by 5 points."""
    first: dict[str, Any] = {"step": 101, "gpu": gpu(90), "evaluation": {"accuracy": 0.9}}
    world = running()
    world.later(20)
    world.see(report=report(**first))
    world.settle()
    before = len(world.patches)
    world.later(20)
    end = stamp(NOW + timedelta(minutes=5, seconds=40))
    world.see(report=report(**first | SMALL | {"estimatedCompletionTime": end}))
    world.settle()
    assert len(world.patches) == before
    world.later(20)
    world.see(report=report(**first | SMALL | move))
    world.settle()
    assert len(world.patches) == before + 1


def test_small_moves_add_up_to_one_that_is_written() -> None:
    world = running()
    world.later(20)
    for rate in range(2500, 2700, 10):
        world.later(20)
        world.see(report=report(101, samplesPerSecond=float(rate)))
        world.settle()
    assert float(world.status["progress"]["samplesPerSecond"]) > 2600


@pytest.mark.rule(13)
def test_of_what_is_spent_no_move_is_too_small() -> None:
    world = running()
    world.later(20)
    world.see(report=report(101), spent=Spent("2.3456", 10))
    world.settle()
    world.later(20)
    world.see(spent=Spent("2.3457", 10))
    world.settle()
    assert world.status["privacy"]["epsilonSpent"] == "2.3457"


def test_that_all_workers_are_up_is_written_at_once() -> None:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.later(5)
    world.see(pods=(pod(0),), claim=claim())
    world.reconcile()
    assert world.status["workers"]["ready"] == 0, "one of two is a counter, which waits"
    world.see(pods=(pod(0), pod(1)))
    world.reconcile()
    assert world.status["display"]["ready"] == "2/2"
    assert world.reason("ResourcesReady") == ("True", "ResourcesCreated")


def test_a_job_without_figures_is_looked_at_often_in_its_first_minute_only() -> None:
    world = running()
    assert world.decide().wake_after == 1.0
    world.later(61)
    world.settle()
    assert world.decide().wake_after == 15.0


CRASH = "Traceback: worker-{n} of pid {n} at 0x{n:012x}, container {n:064x}"


@pytest.mark.parametrize("code", [1, 137])
def test_ten_crashes_of_one_cause_cost_three_writes_at_most(code: int) -> None:
    """The kubelet starts the container again each time, and it runs for two seconds."""
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.later(10)
    world.see(pods=(pod(0),), claim=claim())
    world.settle()
    before = len(world.patches)
    for crash in range(10):
        words = CRASH.format(n=crash * 7919 + 11)
        last = {"terminated": {"exitCode": code, "reason": "Error", "message": words}}
        unready = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
        up = {"running": {"startedAt": stamp(world.now)}}
        up_again = pod(0, conditions=unready)
        up_again["status"]["containerStatuses"][0] |= {"state": up, "ready": False}
        if crash:
            up_again["status"]["containerStatuses"][0]["lastState"] = last
        backoff = waiting_pod("CrashLoopBackOff", "back-off", lastState=last)
        for seen, seconds in ((up_again, 2), (backoff, min(300, 10 * 2**crash))):
            world.see(pods=(seen,))
            for _ in range(4):
                world.later(seconds / 4)
                world.reconcile()
    assert world.reason("Running") == ("False", "WorkerCrashing")
    assert len(world.patches) - before <= 3
    assert world.events.count("WorkerCrashing") == 1
    world.see(pods=(pod(0),))
    world.reconcile()
    assert world.reason("Running") == ("False", "WaitingForWorkers")


def test_that_a_worker_crashes_in_another_way_is_written() -> None:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    for code in (1, 3):
        world.later(40)
        last = {"terminated": {"exitCode": code, "reason": "Error", "message": "why"}}
        world.see(pods=(waiting_pod("CrashLoopBackOff", "back-off", lastState=last),))
        world.settle()
        assert f"(exit code {code})" in world.condition("Running")["message"]


def test_that_another_container_of_the_same_pod_could_not_be_started_is_no_news() -> None:
    little = {"replicas": 2, "resources": {"limits": {"memory": "4Mi"}}}
    world = World.of(digits(workers=little), privacy_plan=PLAN)
    world.settle()
    written = []
    for position, container in ((0, "8b4d5c6c6cc1"), (0, "1f3a5c6c6cc1"), (1, "1f3a5c6c6cc1")):
        world.later(40)
        words = f'failed to start containerd task "{container * 5}": cannot start a stopped process'
        ended = {"exitCode": 128, "reason": "StartError", "message": words}
        tried = waiting_pod("CrashLoopBackOff", lastState={"terminated": ended}, position=position)
        world.see(pods=(tried,))
        world.settle()
        written.append(len(world.patches))
        assert world.reason("Running") == ("False", "OutOfMemory")
    assert [each - written[0] for each in written] == [0, 0, 1]
