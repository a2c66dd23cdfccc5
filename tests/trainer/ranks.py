"""What the ranks of a test's world execute."""

from __future__ import annotations

import pytest
import torch
from models import Plan, Records, flat, linear, make_step, make_task, rows, silent

from dtjob_trainer.distributed import (
    ParametersDiverged,
    agreed_digest,
    parameters_digest,
    share_parameters,
)
from dtjob_trainer.keys import fresh_secret
from dtjob_trainer.task import TaskError
from dtjob_trainer.tasks import digits, digits_cnn

SMALL = Plan(noise_multiplier=2.203, max_grad_norm=1.0, batch_size=16, dataset_size=1437)
CHARGES = (0, 1, 5)


def few_digits():
    """Every sixth digit: as a test, enough."""
    records = digits.task({}).dataset()
    return Records({"pixels": records.pixels[::6], "label": records.labels[::6]})


def scenarios():
    """{name: (task, records, plan, draws, options)}: sizes that no world divides evenly."""
    return {
        "linear": (digits.task({}), few_digits(), SMALL, CHARGES, {}),
        "overflow": (make_task(), Records(rows(200)), Plan(), (0, 1), {"physical_batch_size": 3}),
        "convolution": (digits_cnn.task({}), few_digits(), SMALL, CHARGES[:2], {}),
        "noise alone": (make_task(losses=silent), Records(rows()), Plan(), CHARGES, {}),
        "empty": (
            make_task(),
            Records(rows(2)),
            Plan(batch_size=1, dataset_size=1000),
            CHARGES,
            {},
        ),
    }


def train_all(group):
    """Every scenario on this rank: {name: (parameters, ids read per draw, digest)}."""
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
        results[name] = (flat(model), read, parameters_digest(model))
    return results


def use_the_group(group):
    rank, size = group.rank, group.world_size
    found = {
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
    with pytest.raises(TaskError, match="different numbers of records"):
        make_step(make_task(), linear(), Plan(), Records(rows(60 + rank)), group)
    return found
