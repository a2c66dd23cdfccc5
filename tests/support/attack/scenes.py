"""Neighbouring data sets, and the real step over either, whose release is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dtjob_trainer.mechanism.clipping import PerExampleClip
from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys, derive_keys
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.records.sampling import PoissonSampler
from dtjob_trainer.mechanism.step import Learner, PrivateData, PrivateStep
from dtjob_trainer.task import Task

Floats = npt.NDArray[np.float64]
# Rare enough for draws of a scene never to overflow, but where they must.
_TAIL = 1e-9


@dataclass(frozen=True)
class Scene:
    """A task, two data sets of which one has one record more, and what is claimed.

    Attributes
    ----------
    task
        Its model and losses; its data set is not asked for.
    records
        By field, `[n, *shape]`: those of the larger data set.
    x
        The number of the record that the smaller one lacks.
    rows
        P.
    batch_size, dataset_size
        B and N, by which q is stated. Equal where every record is drawn.
    noise_multiplier
        σ.
    max_grad_norm
        C, less than the gradients of zoo models.
    draws
        How many draws one trial sees.
    random
        Whether sums differ from draw to draw beyond rounding, though every record is drawn.
    """

    task: Task
    records: Mapping[str, npt.NDArray[Any]]
    x: int
    rows: int = 4
    batch_size: int = 8
    dataset_size: int = 8
    noise_multiplier: float = 1 / 3
    max_grad_norm: float = 2.0**-10
    draws: int = 1
    random: bool = True

    @property
    def sample_rate(self) -> float:
        """q, as stated."""
        return self.batch_size / self.dataset_size

    @property
    def mechanism(self) -> Mechanism:
        """What is claimed of a step."""
        sampler = PoissonSampler(self.batch_size, self.dataset_size, _TAIL)
        return Mechanism(sampler, PerExampleClip(self.max_grad_norm), self.noise_multiplier)

    def held(self, with_x: bool) -> Held:
        """One of the two data sets."""
        if with_x:
            return Held(self.records)
        return Held({name: np.delete(of, self.x, 0) for name, of in self.records.items()})


class Held:
    """Records in memory."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {name: array[index] for name, array in self._arrays.items()}


class Kept(torch.optim.Optimizer):
    """Keeps the noised mean that a step gives it, and leaves the model where it is."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self.mean = np.empty(0)

    def step(self, _closure: Any = None) -> None:  # type: ignore[override]
        """Keep it: float64[d]."""
        given = [p.grad for group in self.param_groups for p in group["params"]]
        flat = [grad.reshape(-1) for grad in given if grad is not None]
        self.mean = torch.cat(flat).double().numpy()


class Releases:
    """What the real step releases of one of a scene's data sets, draw by draw.

    Parameters
    ----------
    with_x
        Of the larger one.
    noised
        False: what would be released without noise, which no plan allows. The sum is the same.
    """

    def __init__(
        self,
        scene: Scene,
        keys: AttemptKeys,
        with_x: bool,
        group: Group,
        *,
        noised: bool = True,
    ) -> None:
        model = scene.task.model()
        self._kept = Kept([p for p in model.parameters() if p.requires_grad])
        mechanism = scene.mechanism
        self._unit = scene.batch_size / scene.max_grad_norm
        self._step = PrivateStep(
            Learner(model, scene.task.losses, self._kept, lambda _: 0.0),
            PrivateData(scene.held(with_x), scene.task.example_spec),
            mechanism if noised else replace(mechanism, noise_multiplier=0.0),
            keys,
            group,
            physical_batch_size=scene.rows,
        )

    def of(self, draw: int) -> Floats:
        """Return the sum that draw c releases, float64[d], in units of C."""
        self._step.run(draw, 0)
        return self._kept.mean * self._unit


def keys_of(purpose: str) -> AttemptKeys:
    """The keys of an attempt, the same in every run, other ones for each purpose."""
    secret = hashlib.sha256(purpose.encode()).digest()
    return derive_keys(secret, "11111111-2222-3333-4444-555555555555", 1)
