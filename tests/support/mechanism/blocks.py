"""A small model with a function of the test in its midst."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dtjob_trainer.task import Task
from tests.support.mechanism.models import CLASSES, FEATURES, make_task

Function = Callable[[torch.Tensor], torch.Tensor]


class Hidden(nn.Module):
    """A linear layer, a function of what it gives, [rows, 8], and another layer."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.second(self.function(self.first(x)))
        return scores


def rows(count: int) -> dict[str, torch.Tensor]:
    """Random rows for it, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.rand(count, FEATURES, generator=generator),
        "y": torch.arange(count) % CLASSES,
    }


def hidden(function: Function) -> Task:
    """Its task."""
    return make_task(model=lambda: Hidden(function))


def jittered(h: torch.Tensor) -> torch.Tensor:
    """As it is written everywhere; no power of ten makes NaN positive definite."""
    matrices = h.view(-1, 2, 4) @ h.view(-1, 2, 4).transpose(1, 2)
    jitter = 1e-6
    while True:
        try:
            factor: torch.Tensor = torch.linalg.cholesky(matrices + jitter * torch.eye(2))
            return h * factor.sum((1, 2))[:, None]
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            jitter *= 10
