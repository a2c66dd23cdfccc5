"""Tasks and plans for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys, derive_keys
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.optim import make_optimizer
from dtjob_trainer.mechanism.step import Learner, PrivateData, PrivateStep
from dtjob_trainer.task import ArraySpec, Task

# Small tensors gain nothing from threads, and tests share the machine.
torch.set_num_threads(1)

KEYS = derive_keys(bytes(range(32)), "8c5e6b1c-1111-2222-3333-444455556666", 3)
FEATURES, CLASSES = 6, 3


@dataclass(frozen=True)
class Plan:
    noise_multiplier: float | None = 1.5
    max_grad_norm: float | None = 1.0
    batch_size: int = 16
    dataset_size: int = 64
    mode: str = "DPSGD"
    sample_rate: float | None = 1.0
    delta: float | None = 1e-5
    steps: int = 336
    replay_reserve_steps: int = 30
    clipping: str = "hooks"
    adjacency: str = "AddRemove"


def mechanism_of(plan: Plan | Mechanism, allow_zero_noise: bool = False) -> Mechanism:
    """The plan's mechanism; a noise of zero is no mechanism of any plan, so it is put in here."""
    if isinstance(plan, Mechanism):
        return plan
    if not allow_zero_noise:
        return Mechanism.of(plan)
    return replace(Mechanism.of(replace(plan, noise_multiplier=1.0)), noise_multiplier=0.0)


class Records:
    """Synthetic records in memory; remembers which ids were read."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: array.copy() for name, array in arrays.items()}
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        self.read.append(index)
        return {name: array[index] for name, array in self.arrays.items()}


def rows(count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.uniform(-1, 1, (count, FEATURES)).astype(np.float32),
        "y": generator.integers(0, CLASSES, count),
    }


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, CLASSES)


def cross_entropy(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def make_task(
    model: Callable[[], nn.Module] = linear,
    losses: Callable[..., torch.Tensor] = cross_entropy,
    records: Any = None,
    shape: tuple[int, ...] = (FEATURES,),
    **options: Any,
) -> Task:
    return Task(
        model=model,
        dataset=lambda: records if records is not None else Records(rows()),
        example_spec={
            "x": ArraySpec(shape, "float32", -1.0, 1.0),
            "y": ArraySpec((), "int64", 0, CLASSES - 1),
        },
        losses=losses,
        **options,
    )


def make_step(
    task: Task,
    model: nn.Module,
    plan: Plan | Mechanism,
    records: Any,
    group: Group | None = None,
    keys: AttemptKeys = KEYS,
    rate: float | Callable[[int], float] = 0.5,
    optimizer: str = "sgd",
    model_for_optimizer: nn.Module | None = None,
    allow_zero_noise: bool = False,
    physical_batch_size: int | None = None,
) -> PrivateStep:
    rate_at = rate if callable(rate) else lambda _: rate
    optimized = model_for_optimizer if model_for_optimizer is not None else model
    parameters = [p for p in optimized.parameters() if p.requires_grad]
    step = PrivateStep(
        Learner(model, task.losses, make_optimizer(optimizer, parameters), rate_at),
        PrivateData(records, task.example_spec),
        mechanism_of(plan, allow_zero_noise),
        keys,
        group if group is not None else Group(),
        physical_batch_size=physical_batch_size,
    )
    if isinstance(records, Records):
        records.read.clear()  # what was read to see whether an index means one record
    return step


def flat(model: nn.Module) -> np.ndarray:
    return np.concatenate(
        [p.detach().numpy().reshape(-1) for p in model.parameters() if p.requires_grad]
    )


def silent(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Losses without gradient: what is left of a step is its noise."""
    nothing: torch.Tensor = 0 * model(batch["x"]).sum(1)
    return nothing
