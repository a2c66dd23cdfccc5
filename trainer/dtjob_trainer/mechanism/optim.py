"""Optimizers by name, and the learning rate as a pure function of the step (Rule 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SCHEDULES = ("Constant", "Linear", "Cosine")


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of a step, from public constants only (Rule 5).

    The first `warmup_steps` steps rise linearly: step s has peak·(s + 1)/warmup_steps. Then
    `Constant` stays at the peak, `Linear` and `Cosine` (half a period) fall from it
    towards zero, which they would reach at step `total_steps`.

    Parameters
    ----------
    peak
        Positive.
    schedule
        One of `SCHEDULES`.
    total_steps, warmup_steps
        The plan's T >= 1 and 0 <= warmup_steps < T.
    """

    peak: float
    schedule: str
    total_steps: int
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak > 0):
            raise ValueError(f"learningRate must be positive and finite, not {self.peak}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} must be one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(
                f"warmupSteps {self.warmup_steps} must be at least 0 and less than "
                f"the {self.total_steps} steps",
            )

    def __call__(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        if self.schedule == "Linear":
            return self.peak * (1 - done)
        if self.schedule == "Cosine":
            return self.peak * (1 + math.cos(math.pi * done)) / 2
        return self.peak


def make_optimizer(name: str, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of that name with torch's defaults; each step sets its rate."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} must be one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](parameters, lr=0.0)  # type: ignore[call-arg]
