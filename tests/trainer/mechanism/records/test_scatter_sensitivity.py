"""Rule 8: with the others in their slots, one record more changes the sum by C at most.

Whatever a slot's gradient depends on beside its record: its place, or random numbers of all rows.
These sums are those of a whole draw, over ranks and micro-batches, through loader and clip.
"""

import numpy as np
import pytest
import torch
from torch import nn

from dtjob_trainer.mechanism.clipping import PerExampleClip
from dtjob_trainer.mechanism.coins import Coins
from dtjob_trainer.mechanism.records.batches import BatchLoader
from dtjob_trainer.mechanism.records.sampling import Reading
from dtjob_trainer.mechanism.records.scatter import PADDING, Layout, Slots, scatter
from tests.support.mechanism.models import FEATURES, KEYS, Records, make_task, rows

CPU = torch.device("cpu")
ROOM = Layout(2, 2, 18)
C, DRAW, RECORDS = 1.0, 5, 61
X = 0  # the record more: the first one, so that it comes before all others
SIGNS = torch.tensor([1.0, -1.0])


def a_coin_per_micro_batch(model, batch):
    return model(batch["x"]).sum(1) * SIGNS[torch.randint(0, 2, ())]


def members_by_position(model, batch):
    return model(batch["x"]).sum(1) * SIGNS[torch.arange(len(batch["y"])) % 2]


def public_fixed_masks(model, batch):
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 2, batch["x"].shape, generator=generator)
    return model(batch["x"] * (2 * mask - 1)).sum(1)


TASKS = [a_coin_per_micro_batch, members_by_position, public_fixed_masks]


def model():
    torch.manual_seed(0)
    return nn.Linear(FEATURES, 1)


def some_records():
    """Of two opposite kinds at random, with gradients beyond C."""
    arrays = rows(RECORDS)
    arrays["x"][:] = np.random.default_rng(2).choice([-1, 1], (RECORDS, 1))
    return Records(arrays)


def total(slots, losses):
    """The sum of a draw over all ranks: fp64[n]."""
    loader = BatchLoader(
        some_records(), make_task().example_spec, KEYS.loading, torch.device("cpu")
    )
    result = torch.zeros(FEATURES + 1, dtype=torch.float64)
    for rank, (ids, drawn) in enumerate(zip(*slots, strict=True)):
        coins, one = Coins(KEYS.coins, rank, CPU), PerExampleClip(C)
        summed = one.summed(model(), losses, 1)
        for number, held in enumerate(zip(ids, drawn, strict=True)):
            batch = loader.micro_batch(DRAW, *held)
            coins.begin(DRAW, number)
            summed.add(batch.fields, batch.mask)
        summed.close()
        result += summed.flat
    return result


def scattered():
    """All records but x, drawn, and the slots that are left."""
    others = np.arange(1, RECORDS)
    reading = Reading(others, np.ones(len(others), dtype=bool))
    slots = scatter(KEYS.order, DRAW, reading, ROOM)
    return slots, np.flatnonzero(slots.ids.reshape(-1) == PADDING)


def with_x(slots, place):
    ids, drawn = slots.ids.copy(), slots.drawn.copy()
    ids.reshape(-1)[place], drawn.reshape(-1)[place] = X, True
    return Slots(ids, drawn)


@pytest.mark.rule(8)
@pytest.mark.parametrize("losses", TASKS)
def test_a_record_more_changes_the_sum_by_at_most_c(losses):
    slots, free = scattered()
    before = total(slots, losses)
    for place in free[[0, -1]]:
        change = torch.linalg.vector_norm(total(with_x(slots, place), losses) - before).item()
        assert 0.99 * C < change <= C


def dealt(ids):
    """Records in turn to the ranks, each of which fills its micro-batches one after another."""
    slots = np.full(ROOM, PADDING)
    for rank in range(ROOM.ranks):
        own = ids[rank :: ROOM.ranks]
        slots[rank].reshape(-1)[: len(own)] = own
    return Slots(slots, slots != PADDING)


@pytest.mark.rule(8)
@pytest.mark.parametrize("losses", TASKS)
def test_the_measure_tells_records_that_move(losses):
    """Else the test above would pass whatever the slots are."""
    ids = np.arange(RECORDS)
    change = total(dealt(ids), losses) - total(dealt(ids[1:]), losses)
    assert torch.linalg.vector_norm(change).item() > 4 * C
