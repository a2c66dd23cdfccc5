"""Rule 8: at every place, a record more or less changes a draw's sum by its own part alone.

The sums are those of whole draws of scattered slots, through loader, coins and clip. C is half the
least norm of a gradient, so that the clip binds for all. A slot whose record does not count holds
what one without a record holds, so that a removal backwards is an insertion.
"""

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.clipping import ClippedSum
from dtjob_trainer.mechanism.coins import Coins
from dtjob_trainer.mechanism.per_example import PerExampleGradients, trainable
from dtjob_trainer.mechanism.records.batches import BatchLoader, synthetic_examples
from dtjob_trainer.mechanism.records.sampling import Reading
from dtjob_trainer.mechanism.records.scatter import Layout, scatter
from dtjob_trainer.mechanism.slack import clipped_norm
from dtjob_trainer.preflight import probes
from tests.support.mechanism.models import KEYS, Records
from tests.support.zoo.everything import ACCEPTED

pytestmark = pytest.mark.models

CPU = torch.device("cpu")
DRAW, ROOM = 5, Layout(1, 2, 3)
RECORDS = ROOM.slots
#: Of C: what a block of fp32 rows rounds by for one of them, 2·3²·2⁻²⁴.
ROUNDED = 1.1e-6


class Kept(PerExampleGradients):
    """Also keeps the gradients of all passes: Tensor[P, n] of each."""

    passes: list[torch.Tensor]

    def __call__(self, batch, rows):
        found = super().__call__(batch, rows)
        self.passes.append(torch.cat([g for g in found if g is not None], 1).clone())
        return found


class Draw:
    """Sums of one draw of a task's records, whatever is in their slots."""

    def __init__(self, task):
        records = synthetic_examples(task.example_spec, RECORDS, np.random.default_rng(8))
        self.loader = BatchLoader(Records(records), task.example_spec, KEYS.loading, CPU)
        self.model = task.model().train()
        probes.move_off_initial_weights(self.model)
        self.gradients = Kept(self.model, task.losses)

    def total(self, ids, drawn, max_grad_norm):
        """fp64[n], and each slot's gradient before the clip: Tensor[slots, n]."""
        self.gradients.passes = []
        parameters = list(trainable(self.model).values())
        summed = ClippedSum(self.gradients, parameters, clipped_norm(max_grad_norm), 1)
        coins = Coins(KEYS.coins, 0, CPU)
        for number, held in enumerate(zip(ids, drawn, strict=True)):
            batch = self.loader.micro_batch(DRAW, *held)
            coins.begin(DRAW, number)
            summed.add(batch.fields, batch.mask)
        return summed.flat.clone(), torch.cat(self.gradients.passes)


def full():
    """All slots, each with a record that counts."""
    reading = Reading(np.arange(RECORDS), np.ones(RECORDS, dtype=bool))
    slots = scatter(KEYS.order, DRAW, reading, ROOM)
    return slots.ids[0], slots.drawn[0]


@pytest.mark.rule(4, 8)
@pytest.mark.parametrize("entry", ACCEPTED, ids=lambda entry: entry.name)
def test_a_record_more_or_less_changes_the_sum_by_its_own_part(entry):
    draw = Draw(entry.task())
    ids, drawn = full()
    norms = draw.total(ids, drawn, 1.0)[1].norm(dim=1)
    c = norms[norms > 0].min().item() / 2
    more, gradients = draw.total(ids, drawn, c)
    for place in range(RECORDS):
        without = drawn.copy()
        without.reshape(-1)[place] = False
        less, other = draw.total(ids, without, c)
        others = torch.arange(RECORDS) != place
        assert torch.equal(gradients[others], other[others]), "another slot's gradient moved"
        part = gradients[place].double()
        part *= min(1.0, clipped_norm(c) / part.norm().item())
        change = (more - less)[: len(part)]
        assert change.norm().item() <= c
        assert (change - part).norm().item() <= ROUNDED * c
    draw.gradients.close()
