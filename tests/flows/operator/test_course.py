"""The course of a job as its owner sees it: phases, conditions, columns, events, and their cost."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from dtjob_accounting.errors import PlanError
from dtjob_api.job.status import JobStatus
from dtjob_operator.read import coordinator_report
from dtjob_operator.terms.observed import Spent
from tests.support.builders import UID
from tests.support.worlds.world import (
    NOW,
    PLAN,
    World,
    checkpoint,
    claim,
    digits,
    pod,
    report,
    running,
    stamp,
)


def phases(world: World) -> list[str]:
    return [patch["phase"] for patch in world.patches]


def test_a_start_costs_twelve_writes() -> None:
    """From creation to Running, with every step of it seen, looked at twice a second."""
    world = World.of()

    def pass_time(seconds: float) -> None:
        for _ in range(int(2 * seconds)):
            world.later(0.5)
            world.settle()

    starting: dict[str, Any] = {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "worker", "state": {"waiting": {"reason": "ContainerCreating"}}}
        ],
    }
    world.settle()
    pass_time(1)
    world.see(privacy_plan=PLAN)
    pass_time(1)
    world.see(pods=(pod(0, world.now, **starting), pod(1, world.now, **starting)))
    pass_time(2)
    world.see(pods=(pod(0, world.now), pod(1, world.now, **starting)))
    pass_time(1)
    world.see(pods=(pod(0, world.now), pod(1, world.now)), claim=claim())
    pass_time(14)
    world.ledger_status(attempt=1, attempts=[{"attempt": 1, "start": stamp(world.now)}])
    world.see(report=report(0, state="Starting", stage="dry run", samplesPerSecond=None))
    pass_time(2)
    world.lease()
    world.settle()

    assert phases(world) == ["Starting", "Starting", "Running"]
    assert world.events == ["Training"]
    writes = len(world.patches) + len(world.events) + len(world.applied)
    assert writes == 12, "two of them once for a namespace"
    for kind in ("Accepted", "ResourcesReady", "RendezvousReady", "Running", "CheckpointFresh"):
        assert world.condition(kind)["status"] == "True"


@pytest.mark.parametrize(("seconds", "phase"), [(2, None), (4, "Pending")])
def test_a_plan_that_is_soon_made_is_not_waited_for_in_a_status(
    seconds: float, phase: str | None
) -> None:
    """It would cost a write of each job; one that takes longer is shown."""
    world = World.of()
    world.settle()
    assert world.status == {}
    wake = world.decide().wake_after
    assert wake == 3
    world.later(seconds)
    world.settle()
    assert world.status.get("phase") == phase
    world.see(privacy_plan=PLAN)
    world.settle()
    assert world.status["phase"] == "Starting"


def test_every_status_is_one_that_the_api_server_takes() -> None:
    world = running()
    world.later(20)
    world.see(report=report(100, gpu={"count": 1, "utilizationPercent": _ranges(93)}))
    world.settle()
    world.end(result={"steps": 336})
    world.settle()
    for patch in world.patches:
        assert JobStatus.model_validate(patch).to_dict() == patch


@pytest.mark.rule(13)
def test_no_text_of_a_worker_writes_over_what_a_terminal_shows() -> None:
    """`kubectl get --output=jsonpath` and `kubectl describe` print what is stored."""
    world = running()
    escape = "oh\n\x1b[2K epsilon 0.0100\u202e"
    world.ledger_status(checkpoint=checkpoint(10, 1, 10, world.now) | {"path": escape})
    attempt = {"attempt": 1, "start": stamp(NOW), "end": stamp(NOW)}
    world.ledger_status(attempts=[attempt | {"reason": escape, "message": escape}])
    world.settle()
    assert world.status["checkpoint"] == {"step": 10, "time": stamp(world.now)}
    ended = world.condition("Running")["message"]
    assert "no known reason: oh \\x1b[2K" in ended
    world.end("Failed", "TaskFailed", message=escape)
    world.settle()
    for condition in world.status["conditions"]:
        assert condition["message"].isprintable(), condition


def _ranges(mean: int) -> dict[str, int]:
    return {"min": mean - 3, "mean": mean, "max": mean + 2}


def test_an_operator_that_restarts_writes_nothing_new() -> None:
    world = running()
    world.see(status_written=None)
    decision = world.decide()
    assert decision.applies == ()
    assert decision.status == world.status


def restarted(**end: Any) -> World:
    """A job whose first attempt ended after 40 steps, of which 30 are durable."""
    world = running()
    world.later(20)
    world.see(report=report(40))
    world.settle()
    first = {"attempt": 1, "start": stamp(NOW + timedelta(seconds=5)), "end": stamp(world.now)}
    world.ledger_status(
        charged=50, attempts=[first | end], checkpoint=checkpoint(30, 1, 40, world.now)
    )
    world.settle()
    return world


@pytest.mark.parametrize(("workers", "said"), [(1, "with 1 worker"), (2, "with 2 workers")])
def test_workers_are_counted_in_words(workers: int, said: str) -> None:
    world = World.of(digits(workers={"replicas": workers}), privacy_plan=PLAN)
    world.settle()
    world.later(5)
    world.see(pods=tuple(map(pod, range(workers))), claim=claim())
    world.lease()
    (event,) = world.decide().events
    assert event.message.endswith(said)


def test_a_crash_is_a_restart_that_names_its_cause() -> None:
    world = restarted(reason="RankFailed", message="rank 1 was killed by signal 9", rank=1)
    assert world.status["phase"] == "Restarting"
    assert world.reason("Running") == ("False", "Restarting")
    assert "rank 1 was killed by signal 9" in world.condition("Running")["message"]
    assert world.status["progress"]["step"] == 30
    assert world.status["restarts"] == 0
    assert world.events[-1] == "Restarting"
    assert "eta" not in world.status["display"]

    world.later(3)
    world.lease(attempt=2, charged=60, step=30)
    world.see(report=report(31, attempt=2))
    world.settle()
    assert world.status["phase"] == "Running"
    assert (world.status["attempts"], world.status["restarts"]) == (2, 1)
    assert world.events[-1] == "Training"


def test_an_orderly_stop_is_no_failure() -> None:
    world = restarted(reason="Stopped", message="")
    world.lease(attempt=2, charged=60, step=30)
    world.settle()
    assert (world.status["attempts"], world.status["restarts"]) == (2, 0)


def test_attempts_that_ended_before_the_first_draw_were_starts() -> None:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.later(5)
    world.see(pods=(pod(0), pod(1)), claim=claim())
    begun = {"attempt": 1, "start": stamp(world.now), "end": stamp(world.now)}
    for reason in ("InterfaceMissing", "RankFailed"):
        world.ledger_status(attempt=1, attempts=[begun | {"reason": reason, "message": "no eth7"}])
        world.settle()
        assert world.status["phase"] == "Starting"
        assert "no eth7" in world.condition("Running")["message"]


def test_an_attempt_that_would_not_train_is_no_restart() -> None:
    """It was tried again every minute until a person had raised the ledger."""
    world = restarted(reason="PrivacyStateLost", message="the ledger is behind the journal")
    assert world.reason("Running") == ("False", "PrivacyStateLost")
    world.lease(attempt=2, charged=60, step=30)
    world.settle()
    assert (world.status["attempts"], world.status["restarts"]) == (2, 0)


RESULT = {"epsilonSpent": "0.0100", "steps": 336, "evaluation": {"accuracy": 0.943}}
FORGED = "336 of 336 steps done, epsilon 0.0100 spent in 1 draws charged"


def succeeded() -> World:
    world = running()
    world.later(100)
    world.ledger_status(charged=336, checkpoint=checkpoint(336, 1, 336, world.now))
    world.see(spent=Spent("7.5012", 336))
    world.end(result=RESULT, message=FORGED)
    return world


def test_the_status_tells_the_outcome_before_the_pods_go() -> None:
    world = succeeded()
    first = world.reconcile()
    assert first.applies == ()
    assert first.wake_after == 0.0
    assert world.status["phase"] == "Succeeded"
    second = world.reconcile()
    assert [gone.kind for gone in second.deletes] == ["StatefulSet", "StatefulSet"]
    world.see(pods=())
    world.later(15)
    world.settle()
    assert world.decide().wake_after is None
    assert "ready" not in world.status["display"]
    assert world.status["display"]["duration"] == "1m45s"
    assert world.status["result"] == {
        "steps": 336,
        "charged": 336,
        "evaluation": RESULT["evaluation"],
    }
    assert world.status["completionTime"] == stamp(NOW + timedelta(seconds=105))
    assert world.status["progress"]["percent"] == 100
    assert world.status["privacy"]["epsilonSpent"] == "7.5012"
    assert world.reason("Succeeded") == ("True", "Completed")
    assert world.reason("Running") == ("False", "Finished")
    assert world.events[-1] == "Completed"


@pytest.mark.rule(13)
def test_no_word_of_the_workers_on_epsilon_is_shown() -> None:
    """A coordinator can write any outcome; what is told is computed from the charged draws."""
    world = succeeded()
    told = world.decide().events
    world.settle()
    assert "0.01" not in json.dumps(world.status)
    assert [event.message for event in told] == ["336 of 336 steps done, 336 draws charged"]
    assert world.condition("Succeeded")["message"] == told[0].message
    assert world.status["display"]["epsilon"] == "7.51/8"


@pytest.mark.rule(13)
def test_a_figure_that_somebody_wrote_into_a_status_is_corrected() -> None:
    world = succeeded()
    world.settle()
    forged = copy.deepcopy(world.observed.job)
    forged["status"]["privacy"]["epsilonSpent"] = "0.0100"
    forged["status"]["display"]["epsilon"] = "0.01/8"
    world.see(job=forged)
    world.later(15)
    world.settle()
    assert world.status["privacy"]["epsilonSpent"] == "7.5012"
    assert world.status["display"]["epsilon"] == "7.51/8"


def test_an_evaluation_that_failed_is_told_with_the_success() -> None:
    world = running()
    world.ledger_status(charged=336, checkpoint=checkpoint(336, 1, 336, world.now))
    world.end(result={"evaluation": None, "withoutEvaluation": "EvaluationInvalid"})
    world.settle()
    message = world.condition("Succeeded")["message"]
    said = "draws charged; without an evaluation (EvaluationInvalid): see the log of worker 0"
    assert message.endswith(said)


def test_an_end_is_told_with_the_epsilon_of_all_its_draws() -> None:
    """Who waits for the end reads the figure at once, and must not read too little."""
    world = succeeded()
    world.see(spent=Spent("7.4", 300), spent_pending=True)
    waiting = world.reconcile()
    assert world.status["phase"] == "Running"
    assert waiting.wake_after is not None
    world.see(spent=Spent("7.5012", 336), spent_pending=False)
    world.reconcile()
    assert world.status["phase"] == "Succeeded"
    assert world.status["privacy"]["epsilonSpent"] == "7.5012"


def test_nothing_is_made_for_a_job_whose_ledger_has_an_outcome() -> None:
    """Also where the operator was away when the StatefulSet went and the job ended."""
    world = succeeded()
    world.see(coordinator_set=None, worker_set=None, service=None, pods=())
    world.settle()
    assert (world.observed.coordinator_set, world.observed.worker_set) == (None, None)
    assert world.applied.count("StatefulSet") == 2


def test_a_failure_keeps_the_ledgers_words() -> None:
    world = running()
    message = "dtjob_tasks.model:task: layer1 is a BatchNorm1d; use GroupNorm"
    world.end("Failed", "TaskInvalid", message=message)
    world.settle()
    assert world.status["phase"] == "Failed"
    assert world.reason("Failed") == ("True", "TaskInvalid")
    assert world.condition("Failed")["message"] == message
    assert world.events[-1] == "TaskInvalid"
    assert "result" not in world.status


def test_a_finished_job_is_never_run_again() -> None:
    world = succeeded()
    world.settle()
    world.see(pods=())
    world.settle()
    for slot in ("service", "service_account", "role_binding"):
        world.see(**{slot: None})
    applied = len(world.applied)
    world.settle()
    assert len(world.applied) == applied
    assert (world.observed.coordinator_set, world.observed.worker_set) == (None, None)


def test_a_terminal_condition_is_final() -> None:
    world = succeeded()
    world.settle()
    conditions = world.status["conditions"]
    world.end("Failed", "TaskFailed")
    world.later(100)
    world.settle()
    world.see(ledger=None)
    world.settle()
    assert world.status["conditions"] == conditions
    assert world.status["phase"] == "Succeeded"


def test_an_impossible_plan_fails_the_job_for_good() -> None:
    error = PlanError("spec.privacy.epsilon", 0.001, "no noise reaches it; raise epsilon")
    world = World.of(privacy_plan=error)
    world.settle()
    assert world.applied == []
    assert world.status["phase"] == "Failed"
    assert world.reason("Accepted") == ("False", "PrivacyImpossible")
    assert world.reason("Failed") == ("True", "PrivacyImpossible")
    assert "spec.privacy.epsilon: Invalid value: 0.001" in world.condition("Failed")["message"]
    assert world.events == ["PrivacyImpossible"]
    world.see(privacy_plan=PLAN)
    world.settle()
    assert world.applied == []


def with_args(**args: Any) -> dict[str, Any]:
    job = copy.deepcopy(digits())
    job["spec"]["training"]["args"] = args
    return job


def test_arguments_that_no_worker_can_be_handed_fail_the_job_before_anything_is_made() -> None:
    """Pods of it would crash for ever: the kernel starts no program with such a variable."""
    world = World.of(with_args(vocabulary="x" * 110_000), privacy_plan=PLAN)
    world.settle()
    assert world.applied == []
    assert world.status["phase"] == "Failed"
    assert world.reason("Failed") == ("True", "ArgsTooLarge")
    assert "spec.training.args: Invalid value: 110017 bytes" in world.condition("Failed")["message"]
    assert "correct it in a new job" in world.condition("Failed")["message"]


def test_a_job_that_trains_is_refused_for_none_of_its_arguments() -> None:
    """It has proved that its workers take them, as another version of the operator wrote them."""
    world = running()
    world.see(job=with_args(a="x" * 70_000) | {"status": world.status})
    world.settle()
    assert world.reason("Running") == ("True", "Training")


def test_a_job_of_another_version_is_left_as_it_is() -> None:
    world = running()
    job = copy.deepcopy(world.observed.job)
    job["spec"]["queueing"] = 1
    world.see(job=job)
    decision = world.reconcile()
    assert decision.applies == ()
    assert world.reason("Accepted") == ("False", "InvalidSpec")
    assert "spec.queueing" in world.condition("Accepted")["message"]
    assert world.status["phase"] == "Running"
    assert world.decide().status == world.status


def test_a_job_that_is_repaired_while_it_is_planned_is_no_more_refused() -> None:
    """It was read by an operator of another version, and now by its own."""
    world = World.of()
    job = copy.deepcopy(world.observed.job)
    world.see(job={**job, "spec": job["spec"] | {"queueing": 1}})
    world.settle()
    assert world.reason("Accepted") == ("False", "InvalidSpec")
    world.see(job={**job, "status": world.status})
    world.settle()
    assert world.reason("Accepted") == ("Unknown", "Planning")
    world.see(privacy_plan=PLAN)
    world.settle()
    assert world.reason("Accepted") == ("True", "Planned")


def test_a_report_of_nonsense_changes_nothing() -> None:
    """It comes out of a pod that runs users' code."""
    world = running()
    nonsense = {
        "jobUID": UID,
        "attempt": 1,
        "step": 10**30,
        "samplesPerSecond": float("nan"),
        "evaluation": {"accuracy": float("inf"), "3": 4, "loss": "x" * 10**6},
        "gpu": {"count": "many"},
        "heartbeatTime": "yesterday",
        "estimatedCompletionTime": 7,
        "epsilonSpent": "0",
    }
    read = coordinator_report.read(nonsense, UID)
    assert read is not None, "its fields are what is tried here"
    world.see(report=read)
    world.later(60)
    world.settle()
    JobStatus.model_validate(world.status)
    assert world.status["progress"]["step"] == 0
    assert "gpu" not in world.status


UNHEARD = "10.0.0.7:8080 (no answer within 2 s)"


def unheard() -> World:
    """A job that trains, whose coordinator was heard and then no more."""
    world = running()
    world.later(20)
    gpu = {"count": 1, "utilizationPercent": _ranges(93)}
    world.see(report=report(195, gpu=gpu, evaluation={"step": 190, "accuracy": 0.9}))
    world.ledger_status(checkpoint=checkpoint(190, 1, 190, world.now))
    world.settle()
    assert world.status["display"]["gpu"] == "93%"
    world.later(35)
    world.see(report=None, report_trouble=UNHEARD)
    world.settle()
    return world


def test_figures_that_nobody_vouches_for_vanish_and_the_condition_says_why() -> None:
    world = unheard()
    assert world.status["phase"] == "Running"
    assert world.reason("Running") == ("True", "Training")
    message = world.condition("Running")["message"]
    for words in (UNHEARD, "ingress from namespace dtjob-system", "port 8080", "NetworkPolicies"):
        assert words in message
    progress = world.status["progress"]
    assert (progress["step"], progress["percent"]) == (190, 56)
    assert "samplesPerSecond" not in progress
    assert "estimatedCompletionTime" not in progress
    assert "gpu" not in world.status
    assert not {"gpu", "memory", "eta"} & set(world.status["display"])
    assert progress["evaluation"]["accuracy"] == "0.9", "it says of itself of which step it is"


def test_a_coordinator_that_can_not_be_heard_costs_one_write() -> None:
    world = unheard()
    written, told = len(world.patches), list(world.events)
    for _ in range(20):
        world.later(15)
        world.reconcile()
    assert len(world.patches) == written
    assert world.events == told
    world.see(report=report(300), report_trouble=None)
    world.later(15)
    world.settle()
    assert world.condition("Running")["message"] == "steps are executed"
    assert world.status["progress"]["step"] == 300


def test_an_operator_that_has_not_heard_of_a_job_yet_takes_nothing_back() -> None:
    """It was started anew, and asks for the first time."""
    world = running()
    world.later(20)
    world.see(report=report(195, gpu={"count": 1, "utilizationPercent": _ranges(93)}))
    world.settle()
    world.see(report=None, status_written=None)
    assert world.decide().status == world.status
