"""Rule 15: the same training in any layout, against the single-process per-example reference.

Of models that use no random numbers: these are another's with every layout.

To a step a layout is its ranks: two workers with two processes each are the world of four.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dtjob_trainer.mechanism.group import Group
from tests.support.mechanism import reference
from tests.support.mechanism.layouts import run_world
from tests.support.mechanism.models import KEYS, flat
from tests.support.mechanism.ranks import scenarios, train_all

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("layouts"),  # they share worlds that take a while
]

WORLDS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def worlds() -> dict[int, list[Any]]:
    return {1: [train_all(Group())]} | {size: run_world(train_all, size) for size in WORLDS[1:]}


@pytest.mark.rule(3, 6, 8, 15)
@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("name", list(scenarios()))
def test_updates_equal_the_reference(worlds, size, name):
    task, records, plan, charges, _ = scenarios()[name]
    task = dataclasses.replace(task, dataset=lambda: records)
    expected = reference.train(task, plan, KEYS.sampling, KEYS.noise, charges, lambda _: 0.5)
    start = flat(task.model()).astype(np.float64)
    found = worlds[size][0][name].parameters
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    # The update itself, up to the fp32 rounding of the parameters it is added to.
    rounding = 2.0**-24 * np.linalg.norm(start) * len(charges)
    assert np.linalg.norm(found - expected) <= 2e-6 * np.linalg.norm(expected - start) + rounding


@pytest.mark.rule(8, 15)
@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("name", list(scenarios()))
def test_every_rank_reads_its_own_slots(worlds, size, name):
    _, records, plan, charges, _ = scenarios()[name]
    layout = worlds[size][0][name].layout
    assert layout[0] == size
    for number, charge in enumerate(charges):
        slots = reference.slots(KEYS, charge, len(records), plan, *layout)
        for rank, own in zip(worlds[size], slots, strict=True):
            expected = [i for batch in own for i, _ in batch if i is not None]
            assert rank[name].read[number] == expected


@pytest.mark.rule(15)
@pytest.mark.parametrize("size", WORLDS)
def test_noise_is_bit_equal_in_any_layout(worlds, size):
    found, expected = (worlds[w][0]["noise alone"].parameters for w in (size, 1))
    assert np.array_equal(found, expected)


@pytest.mark.rule(6)
@pytest.mark.parametrize("size", WORLDS)
def test_all_ranks_hold_the_same_model(worlds, size):
    for name in scenarios():
        assert len({rank[name].digest for rank in worlds[size]}) == 1


def test_the_scenarios_cover_empty_shares_and_overflow():
    _, records, plan, charges, _ = scenarios()["empty"]
    drawn = [
        reference.drawn(KEYS.sampling, c, len(records), plan.batch_size, plan.dataset_size)
        for c in charges
    ]
    assert drawn == [[], [], []]
