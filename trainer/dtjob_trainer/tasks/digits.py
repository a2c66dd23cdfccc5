"""A linear classifier on handwritten digits: 65 inputs, 10 classes, zero initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dtjob_trainer.task import ArraySpec, Task
from dtjob_trainer.tasks.digits_data import CLASSES, SIDE, split

if TYPE_CHECKING:
    import torch


def task(args: Mapping[str, Any]) -> Task:
    """Return the task; it takes no arguments."""
    if args:
        raise ValueError(f"the digits task takes no training.args, not {sorted(args)}")
    return Task(
        model=model,
        dataset=lambda: split()[0],
        example_spec={
            "pixels": ArraySpec((SIDE, SIDE), "float32", 0.0, 1.0),
            "label": ArraySpec((), "int64", 0, CLASSES - 1),
        },
        losses=losses,
        evaluate=evaluate,
    )


def model() -> torch.nn.Module:
    """Return the linear map from pixels and a constant 1 to classes, at zero."""
    import torch

    linear = torch.nn.Linear(SIDE * SIDE + 1, CLASSES, bias=False)
    torch.nn.init.zeros_(linear.weight)
    return linear


def losses(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy of each image."""
    from torch.nn import functional

    scores = model(_inputs(batch["pixels"]))
    return functional.cross_entropy(scores, batch["label"], reduction="none")


def evaluate(model: torch.nn.Module) -> dict[str, float]:
    """Return the accuracy on the public test images."""
    import torch

    test = split()[1]
    device = next(model.parameters()).device
    scores = model(_inputs(torch.from_numpy(test.pixels).to(device)))
    correct = scores.argmax(1).cpu() == torch.from_numpy(test.labels)
    return {"accuracy": correct.double().mean().item()}


def _inputs(pixels: torch.Tensor) -> torch.Tensor:
    """Return each image less its own mean, at norm 2, and a constant 0.3: 65 figures.

    Clipping then treats images alike: at epsilon 8 no run of 200 ended below an accuracy of 0.93,
    with raw pixels about one in thirty did.
    """
    import torch
    from torch.nn import functional

    flat = pixels.flatten(1)
    shape = functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    return torch.cat([2.0 * shape, flat.new_full((len(flat), 1), 0.3)], 1)
