"""Rule 4: what the rows that are known to round worst show of a record, rounding included."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dtjob_accounting.draws import MAX_PHYSICAL_BATCH_SIZE
from dtjob_accounting.event import Adjacency
from dtjob_trainer.mechanism.clipping import CLIPPERS, ClippedSum
from dtjob_trainer.mechanism.contraction import CHAIN_ROWS
from dtjob_trainer.mechanism.slack import clipped_norm
from testing.examples import examples
from tests.support.mechanism.octave_rows import in_one_chain, octave_rows

C = 1.03
NO_MODEL: Any = SimpleNamespace(reset=lambda: None)


def summed(gradients, present, micro_batches=1):
    """The real sum, of rows that a model might have given; row 0 is there, or padding."""
    parameters = [nn.Parameter(torch.zeros(gradient.shape[1])) for gradient in gradients]
    one = ClippedSum(NO_MODEL, parameters, clipped_norm(C), 1)
    mask = torch.ones(len(gradients[0]), dtype=torch.bool)
    mask[0] = present
    parts = [gradient.tensor_split(micro_batches) for gradient in gradients]
    for number, part in enumerate(mask.tensor_split(micro_batches)):
        one.accumulate([gradient[number].clone() for gradient in parts], part)
    return one.flat


def moved(gradients, **options):
    one, other = (summed(gradients, present, **options) for present in (True, False))
    return (one - other).norm().item()


def apart(rows):
    """As of a model of so many weights in layers of their own; together they are one layer's."""
    return list(rows.split(1, dim=1))


def record_longer(rows):
    """The record's own gradient is longer than C, and clipped to what it was."""
    rows[0] *= 2
    return rows


@pytest.mark.rule(4)
def test_octave_rows_tell_a_chain_of_all_rows_of_a_default_batch():
    """Else the tests below would pass whatever they are given."""
    rows = octave_rows(MAX_PHYSICAL_BATCH_SIZE, 64, clipped_norm(C))
    assert rows.double().norm(dim=1).max() <= clipped_norm(C) * (1 + 2**-20)
    excess = (in_one_chain(rows) - in_one_chain(rows[1:])).norm().item() / C
    assert excess == pytest.approx(1.0028, abs=1e-4)


@pytest.mark.rule(4)
@pytest.mark.parametrize("size", [CHAIN_ROWS, 64, MAX_PHYSICAL_BATCH_SIZE])
@pytest.mark.parametrize("layers", [apart, lambda rows: [rows]], ids=["apart", "together"])
def test_octave_rows_move_the_sum_by_at_most_c(layers, size):
    rows = record_longer(octave_rows(size, 64, clipped_norm(C)))
    assert clipped_norm(C) * (1 - 2**-16) <= moved(layers(rows)) <= C


@pytest.mark.rule(4)
@pytest.mark.parametrize("micro_batches", [1, 2**6])
def test_octave_rows_of_one_weight_move_the_sum_by_at_most_c(micro_batches):
    """16·C were seen of so many rows in one fp32 chain, and 249·C of four times as many."""
    rows = record_longer(octave_rows(2**15, 1, clipped_norm(C)))
    assert moved([rows], micro_batches=micro_batches) <= C


@pytest.mark.rule(4)
@pytest.mark.slow
@pytest.mark.parametrize("exponent", range(5, 18))
@pytest.mark.parametrize("layers", [apart, lambda rows: [rows]], ids=["apart", "together"])
def test_octave_rows_of_every_size_move_the_sum_by_at_most_c(layers, exponent):
    rows = record_longer(octave_rows(2**exponent, 64, clipped_norm(C)))
    assert moved(layers(rows)) <= C


class WeightsApart(nn.Module):
    """A layer for each weight; an example's gradient is the example."""

    def __init__(self, weights):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(weights))

    def forward(self, x):
        return sum(layer(x[:, [i]])[:, 0] for i, layer in enumerate(self.layers))


def losses(model, batch):
    return model(batch["x"])


def sum_of(clipper, examples, present):
    one = clipper.summed(WeightsApart(examples.shape[1]), losses, 1)
    mask = torch.ones(len(examples), dtype=torch.bool)
    mask[0] = present
    one.add({"x": examples}, mask)
    one.close()
    return one.flat


@pytest.mark.rule(4)
@pytest.mark.parametrize("made", dict.fromkeys(CLIPPERS.values()))
@settings(max_examples=examples(5), deadline=None)
@given(data=st.data())
def test_what_a_clipper_states_holds_for_octave_rows(made, data):
    norm = 2.0 ** data.draw(st.integers(-20, 20)) * data.draw(st.floats(1.03, 1.9))
    size = 2 ** data.draw(st.integers(5, 12))
    examples = octave_rows(size, 4 ** data.draw(st.integers(0, 1)), clipped_norm(norm))
    clipper = made(norm)
    one, without, other = examples.clone(), examples, examples.clone()
    one[0] *= data.draw(st.floats(1, 100))
    other[0] *= -1
    sums = [sum_of(clipper, x, x is not without) for x in (one, without, other)]
    assert (sums[0] - sums[1]).norm().item() <= clipper.sensitivity(Adjacency.ADD_REMOVE)
    assert (sums[0] - sums[2]).norm().item() <= clipper.sensitivity(Adjacency.REPLACE_ONE)
    assert math.isfinite(sums[0].norm().item())
