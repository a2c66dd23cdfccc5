"""Measurements on synthetic data that the validator judges; none of them knows the rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.per_example import (
    LossesInvalid,
    PerExampleGradients,
    check_losses,
    trainable,
)
from dtjob_trainer.mechanism.records.batches import synthetic_examples, to_tensors
from dtjob_trainer.mechanism.watch.structure import ValueAsked, ValueKept, looked_at
from dtjob_trainer.task import (
    CORRECT_THE_TASK,
    Task,
    TaskError,
    shown_in_full,
    where_in_task,
)
from dtjob_trainer.usercode.passing import may_pass
from dtjob_trainer.usercode.randomness import no_seeds, same_randomness, seeded_by

Batch = dict[str, torch.Tensor]
State = dict[str, torch.Tensor]
Recalled = torch.Tensor | None
Gradients = dict[str, torch.Tensor | None]
T = TypeVar("T")

# Rows may differ by these parts of their tensor's largest entry, and of the largest of all
# tensors: other orders of fp32 sums, not leaks. (The true gradient of a key's bias in attention is
# zero; what is measured is the rounding of much larger numbers.)
TOLERANCE = 1e-4
TOLERANCE_OF_ALL = 1e-6
_PASSES, _PASSES_SECONDS = 110, 1.0


@dataclass(frozen=True)
class Measured:
    """What one pass over a batch of P synthetic examples gave.

    Attributes
    ----------
    losses
        Tensor[P].
    gradients
        {parameter: Tensor[P, n]}, or None where autograd never reached it.
    outputs
        {module: Tensor[P, ...]} of each module whose first output has P rows, children before
        parents, in the order of their first calls.
    """

    losses: torch.Tensor
    gradients: dict[str, torch.Tensor | None]
    outputs: dict[str, torch.Tensor]

    @property
    def gradient_scale(self) -> float:
        """The largest entry of any gradient."""
        maxima = [g.abs().max().item() for g in self.gradients.values() if g is not None]
        return max(maxima, default=0.0)


def dry_run(call: Callable[[], T]) -> T:
    """Run task code on synthetic data; its errors are shown in full (Rule 20).

    What another try may not meet passes through.
    """
    try:
        return call()
    except (TaskError, ValueAsked, ValueKept):
        raise
    except Exception as error:
        if may_pass(error):
            raise
        message = shown_in_full("the dry run on synthetic data failed", error, CORRECT_THE_TASK)
        raise TaskError(Reason.DRY_RUN_FAILED, message) from None


def move_off_initial_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Add seeded noise to the trainable parameters: zero weights would hide every dependence.

    Returns
    -------
    torch.nn.Module
        The same model.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainable(model).values():
            p.add_(0.05 * torch.randn(p.shape, generator=generator).to(p.device))
    return model


def losses_of(task: Task, model: torch.nn.Module, batch: Batch, seed: int = 0) -> torch.Tensor:
    """Return the losses of a batch, checked for shape and graph, in training mode."""
    model.train()
    with same_randomness(device_of(batch), seed):
        losses = task.losses(model, dict(batch))
    try:
        return check_losses(losses, rows_of(batch))
    except LossesInvalid as error:
        raise TaskError(Reason.TASK_INVALID, str(error)) from None


def seeded(task: Task, model: torch.nn.Module, batch: Batch) -> list[str]:
    """Return the generators that a forward pass seeds; the backward pass may, to repeat it."""
    model.train()
    return seeded_by(lambda: task.losses(model, dict(batch)), device_of(batch))


def where_seeded(task: Task, model: torch.nn.Module, batch: Batch) -> str:
    """Return where in the task's code a forward pass seeds a generator; empty if not by name."""
    model.train()
    try:
        with same_randomness(device_of(batch)), no_seeds():
            task.losses(model, dict(batch))
    except Exception as error:  # `Seeded`, or what the task's code makes of it
        return where_in_task(error)
    return ""


def passes_over_synthetic(task: Task, model: torch.nn.Module, device: torch.device) -> None:
    """Compute losses in training mode, as steps do first; nothing of the model changes.

    As often as code that does something now and then, such as at each hundredth call, needs, but
    no longer than a second or the first pass.
    """
    examples = synthetic_examples(task.example_spec, 2, np.random.default_rng(3))
    batch = to_tensors(examples, device)
    end = time.monotonic() + _PASSES_SECONDS
    for seed in range(_PASSES):
        losses_of(task, model, batch, seed)
        if time.monotonic() > end:
            break


def measure(task: Task, model: torch.nn.Module, batch: Batch) -> Measured:
    """Take each example's gradient by a backward pass of its own: the reference for Opacus."""
    outputs: dict[str, torch.Tensor] = {}
    rows = rows_of(batch)

    def record(name: str, output: object) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, torch.Tensor) and first.dim() and len(first) == rows:
            outputs.setdefault(name, first.detach().clone())

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: record(name, output))
        for name, module in model.named_modules()
    ]
    try:
        losses = losses_of(task, model, batch)
    finally:
        for handle in handles:
            handle.remove()
    parameters = trainable(model)
    per_example: dict[str, list[torch.Tensor | None]] = {name: [] for name in parameters}
    for row in range(rows):
        of_row = torch.autograd.grad(
            losses[row],
            list(parameters.values()),
            retain_graph=row < rows - 1,
            allow_unused=True,
        )
        for name, gradient in zip(parameters, of_row, strict=True):
            per_example[name].append(gradient)
    return Measured(
        losses=losses.detach(),
        gradients={
            name: _stack(gradients, parameters[name]) for name, gradients in per_example.items()
        },
        outputs=outputs,
    )


def look(
    task: Task, model: torch.nn.Module, batch: Batch, seed: int, *, until: int | None = None
) -> None:
    """Make a pass and its backward pass while nothing may ask for the batch's values, or keep them.

    Parameters
    ----------
    until
        See `looked_at`.

    Raises
    ------
    ValueAsked, ValueKept
        Something has.
    """
    copies = {name: tensor.clone() for name, tensor in batch.items()}
    with looked_at(model, copies, until=until) as looking:
        losses = losses_of(task, model, copies, seed)
        torch.autograd.grad(losses.sum(), list(trainable(model).values()), allow_unused=True)
    del losses, copies
    looking.check_forgotten()


def look_at_parameters(task: Task, model: torch.nn.Module, batch: Batch) -> None:
    """Make a pass while nothing may ask for values of what is trained.

    Raises
    ------
    ValueAsked
        Something has.
    """
    with looked_at(model, trainable(model)):
        losses = losses_of(task, model, batch)
        torch.autograd.grad(losses.sum(), list(trainable(model).values()), allow_unused=True)


def per_example_gradients(
    task: Task,
    model: torch.nn.Module,
    batch: Batch,
) -> Gradients:
    """Take each example's gradient as a training step does: {parameter: Tensor[P, n] or None}."""
    gradients = PerExampleGradients(model, task.losses)
    try:
        model.train()
        with same_randomness(device_of(batch)):
            per_example = gradients(batch, rows_of(batch))
    finally:
        gradients.close()
    return dict(zip(trainable(model), per_example, strict=True))


def state_of(model: torch.nn.Module) -> State:
    """Return copies of all parameters and buffers."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def recall(task: Task, model: torch.nn.Module, batch: Batch) -> Recalled:
    """Return the losses of a batch in evaluation mode; None where the task can't compute them.

    A task need not be able to: nothing else calls `losses` so.
    """
    model.eval()
    try:
        with torch.no_grad(), same_randomness(device_of(batch)):
            losses = task.losses(model, dict(batch))
    except Exception as error:
        if may_pass(error):
            raise
        return None
    finally:
        model.train()
    return losses if isinstance(losses, torch.Tensor) and losses.dim() else None


def equal_recall(one: Recalled, other: Recalled) -> bool:
    """Whether two of them show no difference."""
    if one is None or other is None or one.shape != other.shape:
        return one is None and other is None
    return not differing_rows(one.nan_to_num(), other.nan_to_num())


def device_of(batch: Mapping[str, torch.Tensor]) -> torch.device:
    """Return where the batch lies."""
    return next(iter(batch.values())).device


def rows_of(batch: Mapping[str, torch.Tensor]) -> int:
    """Return P."""
    return len(next(iter(batch.values())))


def differing_rows(one: torch.Tensor, other: torch.Tensor, scale_of_all: float = 0.0) -> list[int]:
    """Return the rows of two tensors [P, ...] that differ by more than rounding does."""
    rows = len(one)
    a, b = one.reshape(rows, -1).double(), other.reshape(rows, -1).double()
    scale = max(a.abs().max().item(), b.abs().max().item())
    allowed = TOLERANCE * scale + TOLERANCE_OF_ALL * scale_of_all
    moved = ((a - b).abs() > allowed).any(dim=1)
    return [int(row) for row in moved.nonzero().flatten()]


def _stack(gradients: list[torch.Tensor | None], p: torch.nn.Parameter) -> torch.Tensor | None:
    if all(gradient is None for gradient in gradients):
        return None
    return torch.stack([(torch.zeros_like(p) if g is None else g).reshape(-1) for g in gradients])
