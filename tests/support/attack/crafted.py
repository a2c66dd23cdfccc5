"""Tasks of one linear layer without bias in which an example's gradient is the example, times more.

What more depends on what a record must share with others for a broken step to show it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dtjob_trainer.mechanism.per_example import Losses
from dtjob_trainer.mechanism.records import batches
from dtjob_trainer.task import ArraySpec, Task
from tests.support.attack.scenes import Scene

_WEIGHTS = 3
Batch = Mapping[str, torch.Tensor]


def itself(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Nothing more."""
    total: torch.Tensor = model(batch["x"]).sum(1)
    return total


def by_masks(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Signs of rows that everybody knows, as of dropout under a fixed seed."""
    return itself(model, batch) * public_signs(len(batch["x"]))


def public_signs(rows: int) -> torch.Tensor:
    """The signs of `by_masks`: float32[rows]."""
    generator = torch.Generator().manual_seed(0)
    return _signs(torch.randint(0, 2, (rows,), generator=generator))


def by_shared_coin(model: nn.Module, batch: Batch) -> torch.Tensor:
    """One sign for all rows, as where a layer is left out for a whole batch."""
    return itself(model, batch) * _signs(torch.randint(0, 2, ()))


def by_own_coin(model: nn.Module, batch: Batch) -> torch.Tensor:
    """A sign for each row."""
    return itself(model, batch) * _signs(torch.randint(0, 2, (len(batch["x"]),)))


def by_member(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Members of an ensemble by row (Wen et al., "BatchEnsemble", 2020)."""
    return itself(model, batch) * _signs(torch.arange(len(batch["x"])) % 2)


def by_batch_sign(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Rows that meet: their common sign in the second feature is that of each."""
    return itself(model, batch) * batch["x"][:, 1].mean().sign()


def by_next(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Rows that are mixed: each with the next (Zhang et al., "mixup", 2018)."""
    mixed: torch.Tensor = model((batch["x"] + batch["x"].roll(1, 0)) / 2).sum(1)
    return mixed


def _signs(coins: torch.Tensor) -> torch.Tensor:
    return 2.0 * coins - 1


def scene(losses: Losses, signs: list[float], x: int, **options: float) -> Scene:
    """A scene of records ±e₀ in turn, with C = 1."""
    axis = np.eye(1, _WEIGHTS, dtype=np.float32)
    records = np.array(signs, np.float32)[:, None] * axis
    return of_rows(losses, records, x, **options)


def of_rows(losses: Losses, records: npt.NDArray[np.float32], x: int, **options: float) -> Scene:
    """A scene of these records, with C = 1 and room for as many."""
    made = Scene(
        Task(
            model=lambda: nn.Linear(records.shape[1], 1, bias=False),
            dataset=list,  # never asked for
            example_spec={"x": ArraySpec(records.shape[1:], "float32", -1.0, 1.0)},
            losses=losses,
        ),
        {"x": records},
        x,
        batch_size=len(records),
        dataset_size=len(records),
        max_grad_norm=1.0,
    )
    return dataclasses.replace(made, **options)  # type: ignore[arg-type]


def padding() -> npt.NDArray[np.float32]:
    """What padding rows of such a scene hold: float32[weights]."""
    spec = {"x": ArraySpec((_WEIGHTS,), "float32", -1.0, 1.0)}
    seed = np.random.default_rng(batches._PADDING_SEED)
    row: npt.NDArray[np.float32] = batches.synthetic_examples(spec, 1, seed)["x"][0]
    return row
