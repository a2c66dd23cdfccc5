"""Refuse, on synthetic data and before any private read, what would break the guarantee."""

from __future__ import annotations

import math

import numpy as np
import torch

from dtjob_trainer import probes, refusals
from dtjob_trainer.batches import synthetic_examples, to_tensors
from dtjob_trainer.clipping import trainable
from dtjob_trainer.task import (
    EVALUATION_INVALID,
    MODEL_REFUSED,
    TASK_INVALID,
    Task,
    TaskError,
)

_ROWS = 4


def preflight(
    task: Task,
    device: torch.device | None = None,
    physical_batch_size: int | None = None,
) -> None:
    """Dry-run the task on synthetic data and refuse what Rules 4, 5 and 21 refuse.

    Works on a model of its own, moved off its initial weights; reads no private data. The task's
    own errors are shown in full (Rule 20).

    Parameters
    ----------
    device
        Where to run; the CPU by default.
    physical_batch_size
        P of the run, so that a batch that doesn't fit the memory fails here.

    Raises
    ------
    TaskError
        Names the module or parameter and the remedy.
    """
    place = device if device is not None else torch.device("cpu")
    model = build_model(task, place)
    refusals.check_tied(model)
    refusals.check_batch_norm(model)
    probes.move_off_initial_weights(model)
    generator = np.random.default_rng(1)
    batch = to_tensors(synthetic_examples(task.example_spec, _ROWS, generator), place)
    other = to_tensors(synthetic_examples(task.example_spec, _ROWS, generator), place)

    before = probes.buffers_of(model)
    measured = probes.dry_run(lambda: probes.measure(task, model, batch))
    refusals.check_buffers(model, before)
    refusals.check_finite(measured)
    refusals.check_repeatable(task, model, batch, measured)
    refusals.check_reached(measured)
    refusals.check_examples_independent(task, model, batch, other, measured)
    refusals.check_per_example_gradients(task, model, batch, measured)
    rows = physical_batch_size if physical_batch_size is not None else _ROWS // 2
    large = to_tensors(synthetic_examples(task.example_spec, rows, generator), place)
    refusals.check_batch_size(task, model, batch, large)


def build_model(task: Task, device: torch.device) -> torch.nn.Module:
    """Make the task's model and move it to ``device``.

    Raises
    ------
    TaskError
        It raises, is no module, or its trainable parameters are absent or not float32.
    """
    model = probes.dry_run(task.model)
    if not isinstance(model, torch.nn.Module):
        raise TaskError(
            TASK_INVALID, f"Task.model() returned a {type(model).__name__}, not a torch.nn.Module"
        )
    for name, p in model.named_parameters():
        if isinstance(p, torch.nn.parameter.UninitializedParameter) or p.is_meta:
            raise TaskError(
                MODEL_REFUSED,
                f"parameter {name} has no values yet; run a forward pass or allocate it "
                "before Task.model() returns",
            )
    parameters = trainable(model)
    if not parameters:
        raise TaskError(
            MODEL_REFUSED, "the model has no trainable parameter; set requires_grad on some"
        )
    for name, p in parameters.items():
        if p.dtype != torch.float32:
            raise TaskError(
                MODEL_REFUSED,
                f"parameter {name} has dtype {p.dtype}; trainable parameters must be float32 "
                "(call .float() on the model, or freeze the parameter)",
            )
    return model.to(device)


def public_figures(task: Task, model: torch.nn.Module) -> dict[str, float]:
    """Run ``Task.evaluate`` on the model in evaluation mode, without gradients (Rule 19).

    Returns
    -------
    dict
        {name: finite figure}; empty without ``Task.evaluate``.

    Raises
    ------
    TaskError
        It doesn't return a dictionary of finite numbers. Exceptions of the task's own code pass
        through unchanged; the rank tells its class and place only (Rule 20).
    """
    if task.evaluate is None:
        return {}
    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            figures = task.evaluate(model)
    finally:
        model.train(mode)
    if not isinstance(figures, dict):
        raise TaskError(
            EVALUATION_INVALID,
            f"Task.evaluate returned a {type(figures).__name__}; return a dict of numbers",
        )
    checked: dict[str, float] = {}
    for name, value in figures.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not isinstance(name, str) or not math.isfinite(number):
            raise TaskError(
                EVALUATION_INVALID,
                f"Task.evaluate returned {name!r}: {value!r}; every figure must be finite",
            )
        checked[name] = number
    return checked
