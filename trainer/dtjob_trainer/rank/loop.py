"""The training loop: rank 0 orders each step, and all ranks execute it.

Rank 0 alone knows the ledger. Before each step it broadcasts a command of three integers; the
other ranks have no state of their own to disagree with (Rule 1). Tensors are the business of what
is passed in: nothing here imports torch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from dtjob_accounting.limits import Segment
from dtjob_accounting.upper_bound import upper_bound
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.pipe import Spending
from dtjob_api.wire.worker_report import ReportedCheckpoint, WorkerState
from dtjob_trainer.ledger.checkpoint import TrainingState
from dtjob_trainer.ledger.leasing import LeasedDraws, ReserveSpent
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.task import TaskError

#: Throughput is that of the last steps within this time.
_WINDOW_SECONDS = 10.0
#: How long the result waits for the helper's epsilon, which may have been restarted; then the
#: Rényi bound is its epsilon.
_EPSILON_SECONDS = 60.0


class Command(IntEnum):
    """First integer of a broadcast; then draw and step."""

    STEP = 1
    COMPARE = 2
    END = 3


class Stepper(Protocol):
    """One logical batch; `dtjob_trainer.mechanism.step.PrivateStep`."""

    def run(self, draw: int, step: int) -> None:
        """Use up one draw for one step of the model."""
        ...


class Group(Protocol):
    """The way from rank 0 to all others; `dtjob_trainer.mechanism.group.Group`."""

    def broadcast_ints(self, values: Sequence[int]) -> list[int]:
        """Return what rank 0 passes in, on every rank."""
        ...


@dataclass(frozen=True)
class Trainee:
    """A rank's model, by what can be done with it.

    Attributes
    ----------
    step
        Executes a logical batch.
    state
        What a checkpoint taken now keeps.
    compare
        Takes this rank's part in finding the digest of the model that all ranks hold (Rule 6).
    evaluate
        Figures on public data, or None where the task has none; raises `TaskError`, free of
        private data, where it fails.
    """

    step: Stepper
    state: Callable[[], TrainingState]
    compare: Callable[[], str]
    evaluate: Callable[[], dict[str, float]] | None


@dataclass(frozen=True)
class Course:
    """Where a training begins, and how far it goes.

    Attributes
    ----------
    plan
        Of the ledger: steps, batch size, and what they are promised to cost.
    start_step
        That of the checkpoint; 0 without one.
    evaluate_every
        Steps between evaluations; None for the end only.
    """

    plan: PrivacyPlan
    start_step: int
    evaluate_every: int | None


class Follower:
    """Every rank but 0: executes commands until one ends the loop."""

    def __init__(self, trainee: Trainee, group: Group, mail: Mailbox) -> None:
        self._step, self._compare = trainee.step, trainee.compare
        self._group, self._mail = group, mail

    def run(self) -> EndKind:
        """Follow commands; returns when all ranks stop together."""
        self._mail.stage("training", state=WorkerState.RUNNING)
        while True:
            command, draw, step = self._group.broadcast_ints([0, 0, 0])
            match Command(command):
                case Command.STEP:
                    self._step.run(draw, step)
                    self._mail.progress(step=step + 1)
                case Command.COMPARE:
                    self._compare()
                case Command.END:
                    return EndKind.FINISHED


class RankZero:
    """Rank 0: leases draws, orders steps, checkpoints, evaluates, ends.

    Parameters
    ----------
    leased
        Opened: its first lease is granted.
    """

    def __init__(
        self, trainee: Trainee, course: Course, leased: LeasedDraws, group: Group, mail: Mailbox
    ) -> None:
        self._step = trainee.step
        self._state = trainee.state
        self._digest = trainee.compare
        self._evaluate = trainee.evaluate
        self._group = group
        self._mail = mail
        self._leased = leased
        self._at = self._started_at = course.start_step
        self._total = course.plan.steps
        self._batch_size = course.plan.batch_size
        self._delta = course.plan.delta
        #: Of all reserved draws: what epsilon can't exceed.
        self._epsilon_guaranteed = course.plan.epsilon_guaranteed
        self._evaluate_every = course.evaluate_every
        self._evaluation: dict[str, Any] | None = None
        self._finished_at: deque[tuple[float, int]] = deque()

    def run(self) -> EndKind:
        """Train to the plan's last step, to an ordered stop, or to the end of the reserve."""
        self._report_ledger()
        self._mail.stage("training", state=WorkerState.RUNNING, step=self._at)
        self._finished_at.append((time.monotonic(), self._at))
        while self._at < self._total:
            if self._mail.drain_ordered():
                return self._drain()
            try:
                draw = self._leased.next_draw()
            except ReserveSpent:
                break
            if draw is None:
                self._compare()
                self._publish()
                continue
            self._order(Command.STEP, draw)
            self._step.run(draw, self._at)
            self._at += 1
            self._note_step()
        return self._succeed()

    def _drain(self) -> EndKind:
        self._compare()
        with self._mail.waiting("writing checkpoint and ledger", state=WorkerState.DRAINING):
            self._leased.close(self._at, self._state())
        self._report_ledger()
        self._order(Command.END)
        return EndKind.DRAINED

    def _publish(self) -> None:
        with self._mail.waiting("writing checkpoint and ledger", state=WorkerState.RUNNING):
            self._leased.publish(self._at, self._state())
        self._report_ledger()

    def _succeed(self) -> EndKind:
        """Write the result.

        The last steps are durable before anything else is tried, so that what goes wrong now
        costs no draw. A failed evaluation costs its figures only, and the message says so.
        """
        digest = self._compare()
        self._publish()
        failed = self._run_evaluation() if self._at else None
        spent = f"{self._leased.charged} draws charged"
        result: dict[str, Any] = {
            "steps": self._at,
            "charged": self._leased.charged,
            "initialModelDigest": self._leased.initial_model_digest,
            "modelDigest": f"sha256:{digest}",
            "evaluation": self._evaluation if failed is None else None,
        }
        if self._delta is not None:
            epsilon, how = self._epsilon(self._delta)
            if epsilon is not None:
                result["epsilonSpent"] = epsilon
            spent = f"epsilon {epsilon or 'unknown'} spent in {spent}{how}"
        message = f"{self._at} of {self._total} steps done, {spent}"
        if self._at < self._total:
            message += "; crashes and stalls have used up the reserve"
        if failed is not None:
            result["withoutEvaluation"] = failed.reason
            message += f"; without an evaluation: {failed.message}"
        with self._mail.waiting("writing the result", state=WorkerState.RUNNING):
            self._leased.succeed(self._at, self._state(), result=result, message=message)
        self._report_ledger()
        self._order(Command.END)
        return EndKind.SUCCEEDED

    def _epsilon(self, delta: float) -> tuple[str | None, str]:
        """Epsilon of the result, and what the message adds to it.

        No model is lost for want of its figure: an upper bound needs nobody's help.
        """
        with self._mail.waiting("computing epsilon", state=WorkerState.RUNNING):
            epsilon = self._mail.epsilon(self._leased.charged, _EPSILON_SECONDS)
        if epsilon is not None:
            return epsilon, ""
        return upper_bound(self._segments(), delta, self._epsilon_guaranteed), (
            " (an upper bound: the process that computes it gave no answer within "
            f"{_EPSILON_SECONDS:.0f} s; it needs about 250 MB of memory)"
        )

    def _segments(self) -> list[Segment]:
        """The charged draws as the accountants take them; they refuse what has no noise."""
        return [
            (s.noise_multiplier or 0.0, s.sample_rate or 0.0, s.draws)
            for s in self._leased.segments
        ]

    def _order(self, command: Command, draw: int = 0) -> None:
        self._group.broadcast_ints([command, draw, self._at])

    def _compare(self) -> str:
        self._order(Command.COMPARE)
        return self._digest()

    def _note_step(self) -> None:
        now = time.monotonic()
        window = self._finished_at
        window.append((now, self._at))
        while len(window) > 2 and now - window[0][0] > _WINDOW_SECONDS:
            window.popleft()
        (since, first), steps = window[0], self._at
        rate = (steps - first) * self._batch_size / max(now - since, 1e-9)
        # The first is reported at once: the supervisor waits for it otherwise than for the others.
        is_first = self._at == self._started_at + 1
        self._mail.progress(at_once=is_first, step=self._at, samples_per_second=round(rate, 1))
        if self._evaluate_every and self._at % self._evaluate_every == 0 and self._at < self._total:
            self._run_evaluation()

    def _run_evaluation(self) -> TaskError | None:
        """Take figures of the model as it is; what went wrong, if they could not be taken.

        That ends no training. `Task.evaluate` was tried before epsilon was spent, and a private
        model can't be had again for nothing; its figures on public data can.
        """
        if self._evaluate is None:
            return None
        try:
            with self._mail.waiting("evaluating", state=WorkerState.RUNNING):
                figures = self._evaluate()
        except TaskError as error:
            return error
        self._evaluation = {"step": self._at, **figures}
        self._mail.stage("training", state=WorkerState.RUNNING, evaluation=self._evaluation)
        return None

    def _report_ledger(self) -> None:
        """Figures that only a write of the ledger changes: at once, since a step may take long."""
        record = self._leased.recorded
        checkpoint = ReportedCheckpoint(record.step, record.time) if record else None
        spending = None
        if self._delta is not None:
            spending = Spending(self._segments(), self._delta, self._epsilon_guaranteed)
        self._mail.progress(
            at_once=True, charged=self._leased.charged, checkpoint=checkpoint, spending=spending
        )
