"""What the zoo's models are made with: fields, losses, and tasks without a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.task import ArraySpec, Records, Task

Batch = Mapping[str, torch.Tensor]
Losses = Callable[[nn.Module, Batch], torch.Tensor]

FEATURES = 5
CLASSES = 3
WORDS = 11
LENGTH = 6


def task_of(model: Callable[[], nn.Module], losses: Losses, **fields: ArraySpec) -> Task:
    """A task whose model has the same initial weights each time."""

    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return model()

    return Task(model=seeded, dataset=_nothing, example_spec=fields, losses=losses)


def features(*shape: int) -> ArraySpec:
    """Floats about zero."""
    return ArraySpec(shape or (FEATURES,), "float32", -1.0, 1.0)


def label(classes: int = CLASSES) -> ArraySpec:
    """A class."""
    return ArraySpec((), "int64", 0, classes - 1)


def text(length: int = LENGTH, words: int = WORDS) -> ArraySpec:
    """A text's words by number."""
    return ArraySpec((length,), "int64", 0, words - 1)


def kept(length: int = LENGTH) -> ArraySpec:
    """1 for a word, 0 for padding."""
    return ArraySpec((length,), "int64", 0, 1)


def classified(model: Callable[[], nn.Module], *shape: int) -> Callable[[], Task]:
    """Makes the task of a classifier of floats."""
    return lambda: task_of(model, cross_entropy, x=features(*shape), y=label())


def read_text(model: Callable[[], nn.Module]) -> Callable[[], Task]:
    """Makes the task of a classifier of texts."""
    return lambda: task_of(model, cross_entropy, x=text(), y=label())


def losses_alone(losses: Losses, *shape: int) -> Callable[[], Task]:
    """Makes the task of one linear layer under these losses."""
    return lambda: task_of(linear, losses, x=features(*shape), y=label())


def cross_entropy(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Of what the model says of `x`."""
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def next_words(logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """A language model's loss: the mean over the words of a text."""
    of_each = functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), words[:, 1:], reduction="none"
    )
    return of_each.mean(1)


def linear() -> nn.Module:
    """Logistic regression."""
    return nn.Linear(FEATURES, CLASSES)


class Through(nn.Module):
    """A module whose forward pass is a function of its parts.

    Parameters
    ----------
    forward
        `forward(self, *inputs)`.
    parts
        Its modules, by name.
    """

    def __init__(self, forward: Callable[..., torch.Tensor], **parts: Any) -> None:
        super().__init__()
        self._pass = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute the function."""
        return self._pass(self, *inputs)


def _nothing() -> Records:
    raise AssertionError("a model of the zoo has no records of its own")
