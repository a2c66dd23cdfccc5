"""One step on synthetic data by the code that trains: what would fail there fails here first.

The validator proves that a task keeps its contract; this proves that the step takes it, with the
noise and the optimizer of the job. Nothing of it is kept.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.contraction import lowering_switches
from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import KEY_BYTES, derive_keys
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.optim import make_optimizer
from dtjob_trainer.mechanism.per_example import trainable
from dtjob_trainer.mechanism.records.batches import synthetic_examples
from dtjob_trainer.mechanism.records.sampling import PoissonSampler
from dtjob_trainer.mechanism.step import Learner, PrivateData, PrivateStep
from dtjob_trainer.preflight import probes
from dtjob_trainer.preflight.task_validation import build_model
from dtjob_trainer.process import memory_group
from dtjob_trainer.task import Task, TaskError
from dtjob_trainer.usercode.randomness import same_randomness

_RECORDS = 2
_ANY_TAIL = 0.1  # of a draw that always takes every record
_FLOAT_BYTES = 4
_GIB = 2.0**30


class _Synthetic(Sequence[Mapping[str, Any]]):
    def __init__(self, task: Task) -> None:
        generator = np.random.default_rng(2)
        self._arrays = synthetic_examples(task.example_spec, _RECORDS, generator)

    def __len__(self) -> int:
        return _RECORDS

    def __getitem__(self, index: Any) -> Any:
        return {name: array[index] for name, array in self._arrays.items()}


def require_fit(
    task: Task, device: torch.device, mechanism: Mechanism, *, rows: int, ranks: int, memory: int
) -> None:
    """Refuse what no step can do with this model, before the first pass is tried.

    Parameters
    ----------
    mechanism
        The job's.
    rows
        P, the rows of a micro-batch.
    ranks
        W, those of the whole job.
    memory
        Bytes that this rank may use.

    Raises
    ------
    TaskError
        The environment lowers fp32, plan and model don't fit each other, or P rows don't fit the
        memory.
    """
    if mechanism.event is None:
        return
    _require_fp32(os.environ)
    with same_randomness(device):
        model = build_model(task, device)
    coordinates = sum(p.numel() for p in trainable(model).values())
    _require_memory(rows, coordinates, memory)
    _require_slack(mechanism, coordinates, rows, ranks)


def rehearse(task: Task, device: torch.device, mechanism: Mechanism, *, optimizer: str) -> None:
    """Execute one step of a few rows on a model of its own.

    As many rows as the job's have been tried by `task_validation.preflight`.

    Parameters
    ----------
    mechanism
        The job's.
    optimizer
        Its name.

    Raises
    ------
    TaskError
        The step raises: shown in full (Rule 20).
    """
    with same_randomness(device):
        model = build_model(task, device)
        probes.dry_run(lambda: _one_step(task, model, mechanism, device, optimizer))


def _one_step(
    task: Task,
    model: torch.nn.Module,
    mechanism: Mechanism,
    device: torch.device,
    optimizer: str,
) -> None:
    """Take every record of the synthetic ones in one micro-batch."""
    own_optimizer = make_optimizer(optimizer, trainable(model).values())
    step = PrivateStep(
        Learner(model, task.losses, own_optimizer, learning_rate=lambda _step: 0.0),
        PrivateData(_Synthetic(task), task.example_spec),
        replace(mechanism, sampler=PoissonSampler(_RECORDS, _RECORDS, _ANY_TAIL)),
        derive_keys(secrets.token_bytes(KEY_BYTES), "rehearsal", 0),
        Group(device),
        physical_batch_size=_RECORDS,
    )
    try:
        step.run(0, 0)
    finally:
        step.close()
    parameter_digest(model.state_dict())


def memory_of_a_rank(ranks: int, device: torch.device) -> int:
    """Bytes that one of a worker's ranks may use: a share of the container's, or its GPU's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    group = memory_group.read()
    if group is not None and group.limit is not None:
        limits.append(group.limit)
    return min(limits) // ranks


def _require_fp32(environment: Mapping[str, str]) -> None:
    for name, harmless in lowering_switches(environment).items():
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"the environment variable {name} is {environment[name]!r}: with it products of fp32 "
            "numbers are computed with fewer bits, and more of a record shows than the noise is "
            f"made for. Set it to {harmless}, in the shell of a local run or in "
            "spec.workers.template.env, or take it out of the image",
        )


def _require_slack(mechanism: Mechanism, coordinates: int, rows: int, ranks: int) -> None:
    try:
        mechanism.noise(coordinates, mechanism.layout(ranks, rows))
    except ValueError as error:
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"spec.privacy and spec.training do not fit the model: {error}",
        ) from None


def _require_memory(rows: int, coordinates: int, memory: int) -> None:
    """Refuse by a message what can't fit: the kernel would only kill the rank, again and again."""
    row = _FLOAT_BYTES * coordinates
    if rows * row <= memory:
        return
    raise TaskError(
        Reason.DRY_RUN_FAILED,
        f"the per-example gradients of {rows} rows and {coordinates} trainable parameters take "
        f"{rows * row / _GIB:.1f} GiB, and a rank has {memory / _GIB:.1f} GiB in all: set "
        f"spec.training.physicalBatchSize to {max(1, memory // (4 * row))} or less, which changes "
        "memory and speed only, or raise spec.workers.resources.limits.memory",
    )
