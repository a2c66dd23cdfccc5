"""A small convolutional network on handwritten digits: 25,970 parameters."""

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
        raise ValueError(f"the digits_cnn task takes no training.args, not {sorted(args)}")
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
    """Return two convolutions with GroupNorm and two linear layers, from a fixed seed."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 2 * 2, 152),
            nn.ReLU(),
            nn.Linear(152, CLASSES),
        )


def losses(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy of each image."""
    from torch.nn import functional

    scores = model(batch["pixels"].unsqueeze(1))
    return functional.cross_entropy(scores, batch["label"], reduction="none")


def evaluate(model: torch.nn.Module) -> dict[str, float]:
    """Return the accuracy on the public test images."""
    import torch

    test = split()[1]
    device = next(model.parameters()).device
    scores = model(torch.from_numpy(test.pixels).unsqueeze(1).to(device))
    correct = scores.argmax(1).cpu() == torch.from_numpy(test.labels)
    return {"accuracy": correct.double().mean().item()}
