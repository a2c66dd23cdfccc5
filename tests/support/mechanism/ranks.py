"""What the ranks of a test's world execute."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.mechanism.group import (
    CollectiveFailed,
    Group,
    ParametersDiverged,
    agreed_digest,
    share_parameters,
)
from dtjob_trainer.mechanism.keys import fresh_secret
from dtjob_trainer.mechanism.records.agreement import agreed_length
from dtjob_trainer.mechanism.records.opening import open_records
from dtjob_trainer.mechanism.records.scatter import Layout
from dtjob_trainer.mechanism.watch.untouched import Untouched
from dtjob_trainer.task import Task, TaskError
from dtjob_trainer.tasks import digits, digits_cnn
from tests.support.mechanism.models import (
    Plan,
    Records,
    flat,
    linear,
    make_step,
    make_task,
    rows,
    silent,
)

SMALL = Plan(noise_multiplier=2.203, max_grad_norm=1.0, batch_size=16, dataset_size=1437)
CHARGES = (0, 1, 5)
Scenario = tuple[Task, Records, Plan, tuple[int, ...], dict[str, Any]]
"""Task, records, plan, draws and options of the step."""
Arrays = dict[str, np.ndarray]


def some_digits() -> Records:
    """Every sixth digit: as a test, enough."""
    records: Any = digits.task({}).dataset()
    return Records({"pixels": records.pixels[::6], "label": records.labels[::6]})


def scenarios() -> dict[str, Scenario]:
    """Sizes that no world divides evenly, by name."""
    return {
        "linear": (digits.task({}), some_digits(), SMALL, CHARGES, {}),
        "overflow": (make_task(), Records(rows(200)), Plan(), (0, 1), {"physical_batch_size": 3}),
        "convolution": (digits_cnn.task({}), some_digits(), SMALL, CHARGES[:2], {}),
        "noise alone": (make_task(losses=silent), Records(rows()), Plan(), CHARGES, {}),
        "empty": (
            make_task(),
            Records(rows(2)),
            Plan(batch_size=1, dataset_size=1000),
            CHARGES,
            {},
        ),
    }


class Trained(NamedTuple):
    """What a rank did in a scenario: `read` are the ids for each draw."""

    parameters: np.ndarray
    read: list[list[int]]
    digest: str
    layout: Layout


def train_all(group: Group) -> dict[str, Trained]:
    """Every scenario on this rank, by name."""
    results = {}
    for name, (task, records, plan, charges, options) in scenarios().items():
        model = task.model()
        step = make_step(task, model, plan, records, group, **options)
        read = []
        for number, charge in enumerate(charges):
            records.read.clear()
            step.run(charge, number)
            read.append(list(records.read))
        step.close()
        digest = parameter_digest(model.state_dict())
        results[name] = Trained(flat(model), read, digest, step.layout)
    return results


def use_the_group(group: Group) -> dict[str, Any]:
    rank, size = group.rank, group.world_size
    found: dict[str, Any] = {
        "scattered": group.reduce_scatter(torch.arange(2.0 * size) + rank).tolist(),
        "gathered": group.all_gather(torch.tensor([float(rank), 0.5])).tolist(),
        "ints": group.broadcast_ints([rank + 7, -1 - rank]),
        "bytes": group.gather_bytes(bytes([rank, 255])),
        "secret": fresh_secret(group),
        "again": fresh_secret(group),
    }
    with pytest.raises(ValueError, match="divide"):
        group.reduce_scatter(torch.zeros(size + 1))
    torch.manual_seed(rank)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ParametersDiverged, match="different parameters"):
        agreed_digest(model, group)
    share_parameters(model, group)
    found["digest"] = agreed_digest(model, group)
    with pytest.raises(TaskError, match="different numbers of records") as caught:
        make_step(make_task(), linear(), Plan(), Records(rows(60 + rank)), group)
    assert caught.value.reason is Reason.DATASET_INVALID
    return found


def leave_rank_0_alone(group: Group) -> str | None:
    """The message by which gloo reports to rank 0 that the other has gone."""
    if group.rank:
        group.close()
        return None
    with pytest.raises(CollectiveFailed) as caught:
        group.gather_bytes(b"?")
    return str(caught.value)


class Augmented(Records):
    """Flips the sign of `x` by a generator that nobody can seed."""

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        record = super().__getitem__(index)
        return {**record, "x": record["x"] * random.SystemRandom().choice([-1, 1])}


class Flipped(Records):
    """Flips the sign of `x` as most libraries do."""

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        record = super().__getitem__(index)
        return {**record, "x": record["x"] * (1 if torch.rand(()) < 0.5 else -1)}


class Broken(Records):
    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        raise OSError("no such file")


class Stream(Records):
    """Gives what comes next, whatever is asked for."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._next = itertools.cycle(range(len(self)))

    def __getitem__(self, _index: int, /) -> Mapping[str, Any]:
        return super().__getitem__(next(self._next))


def reordered(seed: int) -> Arrays:
    order = np.random.default_rng(seed).permutation(200)
    return {name: array[order] for name, array in rows(200).items()}


def split_without_generator() -> Records:
    """As people split: every process finds other records, unless its random numbers are equal."""
    whole = Records(rows(200))
    everyone: Any = range(200)
    ids = list(torch.utils.data.random_split(everyone, [100, 100])[0].indices)
    random.shuffle(ids)
    np.random.shuffle(ids)
    return Records({name: array[ids] for name, array in whole.arrays.items()})


def compare_records(group: Group) -> tuple[dict[str, bool | str], float, float, float]:
    """{name: whether the ranks found that they see the same}."""
    rank, untouched = group.rank, Untouched(linear())
    torch.manual_seed(rank)
    random.seed(rank)
    np.random.seed(rank)
    opened = open_records(
        replace(make_task(), dataset=split_without_generator), untouched, group.device
    )
    close = {"x": rows()["x"] * (1 + rank * 1e-7), "y": rows()["y"]}
    cases = {
        "same": Records(rows()),
        "nearly the same": Records(close),
        "other order": Records(reordered(rank)),
        "flipped by a seeded generator": Flipped(rows()),
        "flipped by another": Augmented(rows()),
        "all broken": Broken(rows()),
        "broken on one rank": Broken(rows()) if rank else Records(rows()),
        "opened without a seed": opened,
        "whatever comes next": Stream(rows(100)),
    }
    found: dict[str, bool | str] = {}
    for name, records in cases.items():
        try:
            found[name] = agreed_length(records, make_task().example_spec, group) == len(records)
        except TaskError as error:
            if error.reason is not Reason.DATASET_INVALID:
                raise
            found[name] = "sort the files" not in error.message and "refused by itself"
    return found, torch.rand(()).item(), random.random(), np.random.random()
