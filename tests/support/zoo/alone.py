"""Each example's gradient without hooks, without other examples, and in fp64.

A pass may take random numbers, of which a row's are those of its place. So the numbers of a pass
are kept as they were drawn, and given to the reference. There each record in turn fills all places
of the batch, in fp64, and autograd takes the loss at its own place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dtjob_trainer.mechanism.per_example import PerExampleGradients, trainable
from dtjob_trainer.task import Task
from dtjob_trainer.usercode.randomness import same_randomness
from tests.support.zoo.making import Batch

Gradients = dict[str, torch.Tensor]
"""Tensor[rows, n] of each trainable parameter."""


class Coins(TorchDispatchMode):
    """The random numbers of a pass: kept, or given once more in whatever precision is asked for.

    Parameters
    ----------
    kept
        What to give, in order; empty to keep.
    """

    def __init__(self, kept: list[torch.Tensor] | None = None) -> None:
        super().__init__()
        self.kept = [] if kept is None else kept
        self._given = None if kept is None else iter(kept)

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = torch.get_rng_state()
        found = func(*args, **(kwargs or {}))
        # By the generator: attention that drops nothing is tagged as random too.
        if not torch.equal(torch.get_rng_state(), before):
            for tensor in tree_leaves(found):
                if self._given is None:
                    self.kept.append(tensor.clone())
                else:
                    tensor.copy_(next(self._given))
        return found


def by_hooks(task: Task, model: nn.Module, batch: Batch) -> tuple[Gradients, list[torch.Tensor]]:
    """Return what a training step takes, and the random numbers of its pass."""
    coins = Coins()

    def losses(model: nn.Module, batch: Batch) -> torch.Tensor:
        with coins:
            return task.losses(model, batch)

    gradients = PerExampleGradients(model, losses)
    try:
        with same_randomness(torch.device("cpu")):
            found = gradients(batch, rows_of(batch))
    finally:
        gradients.close()
    of = {
        name: gradient.clone()
        for name, gradient in zip(trainable(model), found, strict=True)
        if gradient is not None
    }
    return of, coins.kept


def alone(task: Task, model: nn.Module, batch: Batch, coins: list[torch.Tensor]) -> Gradients:
    """Return the same of one example after another; turns the model to fp64."""
    rows, parameters = rows_of(batch), trainable(model.double())
    found: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    for row in range(rows):
        everywhere = {name: _copies(tensor[row], rows) for name, tensor in batch.items()}
        with _fp64(), Coins(coins):
            losses = task.losses(model, everywhere)
        gradients = torch.autograd.grad(
            losses[row], list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        for name, gradient in zip(parameters, gradients, strict=True):
            found[name].append(gradient.reshape(-1))
    return {name: torch.stack(gradients) for name, gradients in found.items()}


def rows_of(batch: Batch) -> int:
    """Return P."""
    return len(next(iter(batch.values())))


def _copies(record: torch.Tensor, rows: int) -> torch.Tensor:
    copies = record.expand(rows, *record.shape).contiguous()
    return copies.double() if copies.is_floating_point() else copies


@contextmanager
def _fp64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
