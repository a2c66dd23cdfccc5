"""The end of training: what it costs when the evaluation or epsilon is not to be had."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from dtjob_accounting import pld
from dtjob_api.ledger.privacy_ledger import OutcomeState
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.pipe import Progress
from dtjob_trainer.ledger.checkpoint import TrainingState
from dtjob_trainer.mechanism.group import Group, ParametersDiverged, agreed_digest
from dtjob_trainer.rank import loop, mailbox
from dtjob_trainer.rank.loop import Course, RankZero, Trainee
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.task import TaskError
from tests.support.builders import tiny_plan
from tests.support.ledgers.durability import Crash, Job


class Counting(torch.nn.Module):
    """A model whose one parameter is the step, as the job's witness expects."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([float(step)]))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=4))
    made.create()
    return made


def train(
    job: Job,
    evaluate: Callable[[], dict[str, float]] | None,
    pipes: tuple[Connection, Connection] | None = None,
    evaluate_every: int | None = None,
    fails: Callable[[str, int], None] = lambda _what, _at: None,
    **promised: Any,
) -> tuple[EndKind, Connection]:
    """One attempt with the job's own account; and the supervisor's end of the pipe.

    Parameters
    ----------
    fails
        Raises in a "step" or while ranks "compare", at a step of the model.
    """
    leased, at = job.opened()
    model = Counting(at)

    class Step:
        def run(self, draw: int, step: int) -> None:
            job.given.append(draw)
            fails("step", step)
            with torch.no_grad():
                model.weight.add_(1)

    def compare() -> str:
        fails("compare", round(model.weight.item()))
        return agreed_digest(model, group)

    ours, theirs = pipes or multiprocessing.Pipe()
    optimizer, group = torch.optim.SGD(model.parameters(), lr=0.5), Group()
    trainee = Trainee(
        Step(),
        lambda: TrainingState(model.state_dict(), optimizer.state_dict()),
        compare,
        evaluate,
    )
    plan = job.plan.model_copy(update={"delta": None, **promised})
    course = Course(plan, at, evaluate_every)
    return RankZero(trainee, course, leased, group, Mailbox(theirs)).run(), ours


def failing() -> dict[str, float]:
    raise TaskError(Reason.EVALUATION_INVALID, "Task.evaluate raised OSError (task.py:7)")


@pytest.mark.parametrize("evaluate_every", [None, 2])
def test_failed_evaluation_costs_its_figures_and_not_the_model(
    job: Job, evaluate_every: int | None
) -> None:
    kind, _ = train(job, failing, evaluate_every=evaluate_every)
    outcome = job.check().status.outcome
    assert kind is EndKind.SUCCEEDED
    assert outcome is not None
    assert outcome.reason is Reason.COMPLETED
    assert outcome.result is not None
    assert outcome.result["evaluation"] is None
    assert outcome.result["withoutEvaluation"] == Reason.EVALUATION_INVALID
    ending = "without an evaluation: Task.evaluate raised OSError (task.py:7)"
    assert outcome.message.endswith(ending)


def test_figures_of_an_earlier_step_are_not_the_results(job: Job) -> None:
    figures = iter([{"accuracy": 0.5}, {"accuracy": 0.6}])

    def evaluate() -> dict[str, float]:
        return next(figures, None) or failing()

    train(job, evaluate, evaluate_every=2)
    outcome = job.check().status.outcome
    assert outcome is not None
    assert outcome.result is not None
    assert outcome.result["evaluation"] is None


@pytest.mark.rule(10)
def test_crash_in_the_last_evaluation_costs_no_draw(job: Job) -> None:
    """The last steps are durable before anything else is tried."""

    def crash() -> dict[str, float]:
        raise Crash

    with pytest.raises(Crash):
        train(job, crash)
    status = job.check().status
    assert status.checkpoint is not None
    assert (status.checkpoint.step, status.charged) == (5, 5)
    assert train(job, lambda: {"accuracy": 0.5})[0] is EndKind.SUCCEEDED
    status = job.check().status
    assert status.charged == 5
    assert status.outcome is not None
    assert status.outcome.result is not None
    assert status.outcome.result["evaluation"] == {"step": 5, "accuracy": 0.5}
    assert job.given == [0, 1, 2, 3, 4]


@pytest.mark.rule(13)
@pytest.mark.parametrize("guaranteed", [None, 1.5])
def test_result_that_waits_for_epsilon_in_vain_has_an_upper_bound(
    job: Job, monkeypatch: pytest.MonkeyPatch, guaranteed: float | None
) -> None:
    """A helper without memory costs no model, and understates nothing."""
    monkeypatch.setattr(loop, "_EPSILON_SECONDS", 0.0)
    kind, _ = train(job, None, delta=1e-5, epsilon_guaranteed=guaranteed)
    outcome = job.check().status.outcome
    assert kind is EndKind.SUCCEEDED
    assert outcome is not None
    assert outcome.result is not None
    spent = float(outcome.result["epsilonSpent"])
    assert pld.epsilon(2.0, 0.25, 5, 1e-5) < spent < 3
    assert spent == guaranteed or guaranteed is None
    assert "an upper bound: the process that computes it gave no answer" in outcome.message


def test_slow_evaluation_beats(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes it for a stalled step."""
    monkeypatch.setattr(mailbox, "_BEAT_SECONDS", 0.01)

    pipes = ours, _ = multiprocessing.Pipe()
    beats: list[float] = []

    def slow() -> dict[str, float]:
        deadline = time.monotonic() + 60
        while len(beats) < 4 and ours.poll(deadline - time.monotonic()):
            if (progress := ours.recv()).stage == "evaluating":
                beats.append(progress)
        return {"accuracy": 0.5}

    train(job, slow, pipes=pipes)
    assert len(beats) == 4


@pytest.mark.rule(13)
def test_draws_are_reported_when_they_are_charged_and_not_a_step_later(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may take minutes, and epsilon of the lease before it is shown for as long."""
    monkeypatch.setattr(mailbox, "_PROGRESS_SECONDS", float("inf"))
    monkeypatch.setattr(loop, "_EPSILON_SECONDS", 0.0)
    pipes = ours, _ = multiprocessing.Pipe()
    train(job, None, pipes=pipes, delta=1e-5)
    messages = []
    while ours.poll():
        messages.append(ours.recv())
    charged = [(it.step, it.charged) for it in messages if isinstance(it, Progress)]
    assert {(0, 2), (2, 4), (4, 5)} <= set(charged)


@pytest.mark.rule(12)
def test_reserve_that_is_spent_still_ends_with_a_result(job: Job) -> None:
    """What is published twice is written once."""
    for _ in range(3):
        job.opened()
    kind, _ = train(job, lambda: {"accuracy": 0.5})
    outcome = job.check().status.outcome
    assert kind is EndKind.SUCCEEDED
    assert outcome is not None
    assert outcome.reason is Reason.PRIVACY_BUDGET_EXHAUSTED
    assert len(json.dumps(outcome.result)) < 512
    assert outcome.message.startswith("3 of 5 steps done, 9 draws charged; crashes and stalls")


@pytest.mark.rule(12)
def test_a_reserve_that_is_spent_at_step_0_leaves_no_result(job: Job) -> None:
    for _ in range(5):
        job.opened()
    kind, _ = train(job, lambda: {"accuracy": 0.5})
    outcome = job.check().status.outcome
    assert kind is EndKind.SUCCEEDED  # the outcome stands in the ledger
    assert outcome is not None
    assert (outcome.state, outcome.reason, outcome.result) == (
        OutcomeState.FAILED,
        Reason.PRIVACY_BUDGET_EXHAUSTED,
        None,
    )
    assert outcome.message.startswith("0 of 5 steps done, 9 draws charged; crashes and stalls")
    assert job.given == []


@pytest.mark.rule(8)
@pytest.mark.parametrize(("at", "durable"), [(0, 0), (1, 0), (2, 2), (4, 4)])
def test_nothing_of_a_batch_that_is_discarded_is_published(job: Job, at: int, durable: int) -> None:
    """Its draw stays charged, and no checkpoint has its step."""

    def fails(what: str, step: int) -> None:
        if (what, step) == ("step", at):
            raise Crash

    with pytest.raises(Crash):
        train(job, None, fails=fails)
    status = job.check().status
    assert status.checkpoint is not None
    assert status.lease is not None
    assert (status.checkpoint.step, status.lease.closed_at) == (durable, None)
    published = {f"step-{step}.pt" for step in (2, 4) if step <= durable}
    assert {path.name for path in job.state_dir.rglob("step-*")} <= {"step-0.pt", *published}
    assert len(job.given) == at + 1


@pytest.mark.rule(6)
@pytest.mark.parametrize(("at", "durable", "drained"), [(2, 0, False), (5, 4, False), (1, 0, True)])
def test_what_is_not_compared_is_not_published(
    job: Job, monkeypatch: pytest.MonkeyPatch, at: int, durable: int, drained: bool
) -> None:
    """At a checkpoint, at the end and at an ordered stop, ranks may hold different parameters."""
    begun: list[int] = []

    def fails(what: str, step: int) -> None:
        begun.append(step)
        if (what, step) == ("compare", at):
            raise ParametersDiverged("rank 1")

    monkeypatch.setattr(Mailbox, "drain_ordered", lambda _: drained and len(begun) == at)
    with pytest.raises(ParametersDiverged):
        train(job, None, fails=fails)
    status = job.check().status
    assert status.checkpoint is not None
    assert status.lease is not None
    assert (status.checkpoint.step, status.lease.closed_at) == (durable, None)
    assert status.outcome is None


@pytest.mark.rule(13)
def test_a_result_has_the_epsilon_of_all_charged_draws(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def epsilon(_: Mailbox, charged: int, _seconds: float) -> str:
        asked.append(charged)
        return "1.5"

    monkeypatch.setattr(Mailbox, "epsilon", epsilon)
    job.opened()  # its lease is lost
    train(job, None, delta=1e-5)
    outcome = job.check().status.outcome
    assert outcome is not None
    assert outcome.result is not None
    assert (outcome.result["steps"], outcome.result["charged"], asked) == (5, 7, [7])
