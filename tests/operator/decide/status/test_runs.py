"""A job that has ended is run again, or was done before: what its status says, and what is made."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_api.content import content
from dtjob_api.derive import child_name
from dtjob_api.job.status import MOST_PREVIOUS_RUNS, JobStatus
from dtjob_operator.read.stored_job import child_of, parsed
from dtjob_operator.terms.observed import EarlierRun, Spent
from tests.support.builders import UID
from tests.support.worlds.world import CHILD, PLAN, World, digits, running

Json = dict[str, Any]
CHILDREN = ("coordinator_set", "worker_set", "service", "network_policy", "disruption_budget")


def ended() -> World:
    """A run that has succeeded, whose pods have gone."""
    world = running()
    world.see(spent=Spent("7.9", 366))
    world.ledger_status(charged=366)
    world.end(result={"steps": 336})
    world.settle()
    world.see(pods=(), report=None)
    world.settle()
    return world


def run_again(world: World, rerun: int) -> None:
    """What the API server and the watches make of a raised `spec.rerun`, until it has a ledger."""
    world.edit(rerun=rerun)
    world.reconcile()
    world.see(ledger=None, claim=None, spent=None, privacy_plan=PLAN)
    world.settle()


def names(world: World) -> set[str]:
    children = (getattr(world.observed, slot) for slot in (*CHILDREN, "ledger"))
    return {child["metadata"]["name"].removesuffix("-w") for child in children if child}


def test_it_is_run_again_with_names_and_conditions_of_its_own() -> None:
    world = ended()
    first = world.status
    run_again(world, 1)
    status = world.status
    assert names(world) == {child_name("digits", UID, 1)} != {CHILD}
    assert (status["rerun"], status["phase"]) == (1, "Starting")
    assert "Succeeded" not in {each["type"] for each in status["conditions"]}
    assert status["ledger"] == child_name("digits", UID, 1)
    assert world.observed.ledger is not None
    assert world.observed.ledger["spec"]["rerun"] == 1
    assert status["previousRuns"] == [
        {
            "rerun": 0,
            "ledger": CHILD,
            "phase": "Succeeded",
            "reason": "Completed",
            "steps": first["progress"]["step"],
            "drawsCharged": 366,
            "epsilonSpent": "7.9",
            "startTime": first["startTime"],
            "completionTime": first["completionTime"],
        }
    ]
    assert status["privacy"]["drawsCharged"] == 0
    assert world.events.count("Rerun") == 1
    assert JobStatus.model_validate(status).to_dict() == status


def test_another_run_waits_until_nothing_is_left_of_the_last() -> None:
    world = running()
    world.end()
    world.settle()
    assert world.observed.pods
    world.edit(rerun=1)
    world.settle()
    assert world.status["phase"] == "Succeeded"
    assert world.observed.service is not None
    world.see(pods=())
    world.settle()
    assert world.status["rerun"] == 1


def test_of_many_runs_the_newest_are_kept() -> None:
    world = ended()
    for rerun in range(1, MOST_PREVIOUS_RUNS + 3):
        run_again(world, rerun)
        world.end("Failed", "TaskFailed")
        world.settle()
        world.see(pods=())
        world.settle()
    kept = [each["rerun"] for each in world.status["previousRuns"]]
    assert kept == list(range(2, MOST_PREVIOUS_RUNS + 2))


def test_a_job_that_is_made_for_a_later_run_has_its_names_from_the_start() -> None:
    world = World.of(digits(rerun=3), privacy_plan=PLAN)
    world.settle()
    assert names(world) == {child_name("digits", UID, 3)}
    assert world.status["rerun"] == 3
    world.edit(rerun=5)
    assert child_of(world.observed.job) == child_name("digits", UID, 3), "the API server refuses it"


@pytest.mark.parametrize("written", [None, -1, "1", True])
def test_a_forged_number_of_the_run_ends_no_operator(written: Any) -> None:
    job = digits() | {"status": {"phase": "Running", "rerun": written}}
    assert child_of(job) in {CHILD, child_name("digits", UID, 1)}


def another_ledger(**spec: Any) -> Json:
    """Of an earlier job of the same name and work."""
    world = running()
    world.see(spent=Spent("7.9", 366))
    world.ledger_status(charged=366)
    world.end(result={"steps": 336})
    ledger = copy.deepcopy(world.observed.ledger)
    assert ledger is not None
    ledger["metadata"]["name"] = "digits-0000aaaa"
    ledger["spec"] |= {"jobUID": "another"} | spec
    return ledger


def done_before() -> World:
    return World.of(
        ledger=another_ledger(),
        is_done_before=True,
        privacy_plan=PLAN,
        spent=Spent("7.9", 366),
    )


def test_what_is_done_is_not_done_again() -> None:
    world = done_before()
    world.settle()
    assert world.applied == []
    status = world.status
    assert status["phase"] == "Succeeded"
    assert world.reason("Succeeded") == ("True", "AlreadyCompleted")
    assert "digits-0000aaaa" in world.condition("Succeeded")["message"]
    assert world.reason("Accepted")[0] == "True"
    assert status["ledger"] == "digits-0000aaaa"
    assert "result" in status
    assert (status["privacy"]["epsilonSpent"], status["privacy"]["drawsCharged"]) == ("7.9", 366)
    assert "attempts" not in status
    assert status["checkpoint"]["location"].startswith("checkpoints-digits-0000aaaa-0:")
    assert world.events == ["AlreadyCompleted"]
    assert JobStatus.model_validate(status).to_dict() == status


def test_what_is_done_is_done_again_if_that_is_asked_for() -> None:
    world = done_before()
    world.settle()
    world.edit(rerun=1)
    world.reconcile()
    world.see(ledger=None, is_done_before=False)
    world.settle()
    assert names(world) == {child_name("digits", UID, 1)}
    (last,) = world.status["previousRuns"]
    assert (last["ledger"], last["reason"]) == ("digits-0000aaaa", "AlreadyCompleted")


def test_what_others_have_spent_on_the_same_work_is_told_once() -> None:
    world = World.of(privacy_plan=PLAN, earlier_runs=(EarlierRun("digits-0000aaaa", 40),))
    first = world.reconcile()
    (event,) = first.events
    assert event.reason == "SpendsAgain"
    assert "digits-0000aaaa (40 draws)" in event.message
    world.see(earlier_runs=())
    world.settle()
    assert world.events.count("SpendsAgain") == 1


def test_the_ledger_has_the_content_of_the_job() -> None:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    assert world.observed.ledger is not None
    wanted = content(parsed(world.observed.job).spec)
    assert wanted is not None
    assert world.observed.ledger["spec"]["content"] == wanted.to_dict()
