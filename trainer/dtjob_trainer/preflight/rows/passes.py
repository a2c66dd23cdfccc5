"""One pass over a batch as a step takes it, and which rows of it are not the same bit for bit.

Scattering needs that a slot's gradient does not depend on what the others hold (Rule 8). Of each
row a fingerprint is kept, not its gradient: two passes need no more memory than a step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.per_example import (
    LossesInvalid,
    PerExampleGradients,
    trainable,
)
from dtjob_trainer.mechanism.watch.fingerprints import fingerprints, same_rows
from dtjob_trainer.preflight.rows.operators import Operators, TooMany
from dtjob_trainer.task import Task, TaskError, where_in_task
from dtjob_trainer.usercode.randomness import same_randomness

Batch = dict[str, torch.Tensor]
Around = contextlib.AbstractContextManager[object]

#: What `Pass.prints` calls the losses.
LOSSES = "losses"
# A pass may take so many times the operators of the usual one, and some: loops may end late.
_TIMES, _SOME = 50, 1000
# What keeps a pass over usual rows from its end.
_SELDOM_DRAWN = "random numbers that are hardly ever drawn"


class Endless(TaskError):
    """A pass over rows at special values, or under such random numbers, does not come to its end.

    Parameters
    ----------
    cause
        What was done to the batch, e.g. `"NaN in one example"`.
    place
        Where the pass was, as `where_in_task` says it.
    """

    def __init__(self, cause: str, place: str) -> None:
        super().__init__(
            Reason.MODEL_REFUSED,
            f"{cause} keeps a pass from its end: the model or losses(){place} had run more than "
            f"{_TIMES} times as many operators as on usual rows; take a public number of turns "
            "where code tries until a value is right, and choose for each row by torch.where",
        )


@dataclass(frozen=True)
class Pass:
    """What a pass over P rows gave.

    Attributes
    ----------
    prints
        {parameter, and `LOSSES`: int64[P], the rows' fingerprints}; None where no gradient is.
    """

    prints: Mapping[str, torch.Tensor | None]

    def moved(self, other: Pass, rows: list[int]) -> list[str]:
        """Return the names under which one of these rows is another one's."""
        return [
            name
            for name, mine in self.prints.items()
            if not same_rows(mine, other.prints[name], rows)
        ]


class Passes:
    """Takes passes of one model; holds its hooks until it is closed.

    Parameters
    ----------
    model
        Accepted so far.
    device
        Where model and batches lie.

    Attributes
    ----------
    on_losses
        Called with the losses of each pass before the backward pass.
    in_losses
        Whether `losses()` runs at the moment.
    """

    on_losses: Callable[[torch.Tensor], None] | None = None
    in_losses = False

    def __init__(self, task: Task, model: torch.nn.Module, device: torch.device) -> None:
        self.task, self.model, self.device = task, model, device
        self._gradients = PerExampleGradients(model, self._losses)
        self._names = list(trainable(model))
        self._last = torch.empty(0)
        self._unsteady: set[str] = set()
        self._within: Callable[[], Around] = contextlib.nullcontext
        self._most = math.inf

    def settle(self, batch: Batch) -> None:
        """Learn of a usual batch what is to be known of all that follow, of as many rows.

        How many operators a pass takes: none may take many times as many. And gradients that are
        others the second time are left out. Those of a GPU's kernels that add up in the order in
        which threads come: their bits tell nothing. CPUs have none.
        """
        operators = Operators()
        self._most = math.inf
        self.take(batch, around=operators)
        self._most = most_operators(operators.count)
        if self.device.type != "cpu":
            once, again = self.take(batch), self.take(batch)
            moved = once.moved(again, list(range(rows_of(batch))))
            self._unsteady.update(set(moved) - {LOSSES})

    def take(
        self,
        batch: Batch,
        *,
        seed: int = 0,
        around: Around | None = None,
        cause: str = _SELDOM_DRAWN,
    ) -> Pass:
        """Compute losses and per-example gradients in training mode, under a fixed seed.

        Parameters
        ----------
        around
            Entered around forward and backward pass.
        cause
            What is unusual about the batch, for `Endless`.

        Raises
        ------
        Endless
            It has run too many operators, once `settle` knows how many it usually takes.
        """
        self.in_losses = False
        self.model.train()
        with self._running(seed, around, cause):
            gradients = self._gradients(batch, rows_of(batch))
        prints = {
            name: None if gradient is None else fingerprints(gradient)
            for name, gradient in zip(self._names, gradients, strict=True)
            if name not in self._unsteady
        }
        return Pass({LOSSES: self._own_print(), **prints})

    def losses(
        self,
        batch: Batch,
        *,
        seed: int = 0,
        around: Around | None = None,
    ) -> Pass:
        """Compute the losses alone."""
        self.model.train()
        with self._running(seed, around):
            self._losses(self.model, batch)
        self._gradients.reset()
        return Pass({LOSSES: self._own_print()})

    @contextlib.contextmanager
    def within(self, around: Callable[[], Around]) -> Iterator[None]:
        """Let every pass meanwhile run within what `around` makes."""
        self._within = around
        try:
            yield
        finally:
            self._within = contextlib.nullcontext

    @contextlib.contextmanager
    def _running(
        self, seed: int, around: Around | None, cause: str = _SELDOM_DRAWN
    ) -> Iterator[None]:
        # Operators are counted by whatever runs them: in some passes nothing else does.
        counted = Operators() if math.isfinite(self._most) else contextlib.nullcontext()
        try:
            with (
                Operators.at_most(self._most),
                counted,
                same_randomness(self.device, seed),
                self._within(),
                around or contextlib.nullcontext(),
            ):
                yield
        except TooMany as error:
            raise Endless(cause, where_in_task(error)) from None

    def close(self) -> None:
        """Take the hooks off the model."""
        self._gradients.close()

    def _losses(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self.in_losses = True
        losses = self.task.losses(model, dict(batch))
        self.in_losses = False
        if not isinstance(losses, torch.Tensor) or losses.shape != (rows_of(batch),):
            raise LossesInvalid("losses() doesn't return one loss for each row of every batch")
        self._last = losses.detach()
        if self.on_losses is not None:
            self.on_losses(losses)
        return losses

    def _own_print(self) -> torch.Tensor:
        losses, self._last = self._last, torch.empty(0)  # nothing of a pass is kept
        return fingerprints(losses[:, None])


@contextlib.contextmanager
def passes_of(task: Task, model: torch.nn.Module, device: torch.device) -> Iterator[Passes]:
    """Give passes of a model, and take their hooks off it afterwards."""
    passes = Passes(task, model, device)
    try:
        yield passes
    finally:
        passes.close()


def most_operators(usual: int) -> int:
    """How many operators a pass may take."""
    return _TIMES * usual + _SOME


def rows_of(batch: Mapping[str, torch.Tensor]) -> int:
    """Return P."""
    return len(next(iter(batch.values())))


def others(rows: int, *changed: int) -> list[int]:
    """Return all rows but these."""
    return [each for each in range(rows) if each not in changed]
