"""Rule 8: drawn records are in uniformly random slots, and what is read tells nothing of them.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the keys,
which are fixed.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from dtjob_trainer.mechanism.records.sampling import Reading, least_words
from dtjob_trainer.mechanism.records.scatter import PADDING, Layout, random_order, scatter
from tests.support.mechanism import reference
from tests.support.mechanism.models import KEYS, Plan

ALARM = 1e-6
PLAN = Plan(batch_size=16, dataset_size=64)


def of(ids, drawn=()):
    """A reading of these ids, of which some are drawn."""
    return Reading(np.array(ids, dtype=np.int64), np.isin(ids, list(drawn)))


def places(slots):
    """{id: its slot} of what is drawn."""
    ids, drawn = slots.ids.reshape(-1), slots.drawn.reshape(-1)
    return {int(ids[s]): s for s in np.flatnonzero(drawn).tolist()}


@pytest.mark.rule(3, 8)
@pytest.mark.parametrize("records", [3, 39, 64, 150])
@pytest.mark.parametrize("layout", [(1, 1, 39), (2, 4, 5), (3, 13, 1), (4, 2, 5)])
def test_slots_are_those_of_the_reference(records, layout):
    """Of 150 records draws overflow the slots."""
    room = Layout(*layout)
    for draw in (0, 7):
        reading = least_words(KEYS.sampling, draw, records, 16 << 58, room.slots)
        ids, drawn = scatter(KEYS.order, draw, reading, room)
        expected = reference.slots(KEYS, draw, records, PLAN, *layout)
        assert ids.shape == drawn.shape == (layout[0], len(expected[0]), layout[2])
        held = zip(ids.reshape(-1).tolist(), drawn.reshape(-1).tolist(), strict=True)
        found = [(None if i == PADDING else i, counts) for i, counts in held]
        assert found == [slot for rank in expected for batch in rank for slot in batch]


@pytest.fixture
def every_order(monkeypatch):
    """Run something under each order of so many words: as likely as each other."""

    def run(count, work):
        outcomes = []
        for first in itertools.permutations(range(count)):
            monkeypatch.setattr(
                "dtjob_trainer.mechanism.records.scatter.words",
                lambda _key, _draw, start, n, first=first: np.array(
                    [0] * n if start else first[:n], dtype=np.uint64
                ),
            )
            outcomes.append(work())
        return Counter(outcomes)

    return run


@pytest.mark.rule(8)
def test_an_order_is_uniform_without_a_modulo(every_order):
    """Each order of the words is an order of its own."""
    found = every_order(4, lambda: tuple(random_order(b"", 0, 4).tolist()))
    assert found == Counter(itertools.permutations(range(4)))


@pytest.mark.rule(8)
@pytest.mark.parametrize(
    "first", [[9, 4, 7, 2], [2**63 + 1, 2**32, 5, 2**63], [2**32, 1, 2**64 - 1, 2**63 - 1]]
)
def test_the_order_is_that_of_whole_words(first, monkeypatch):
    """Not of their remainders: a few slots would come first more often than others."""
    given = np.array(first, dtype=np.uint64)
    monkeypatch.setattr(
        "dtjob_trainer.mechanism.records.scatter.words", lambda *_: given[: len(first)]
    )
    assert random_order(b"", 0, 4).tolist() == sorted(range(4), key=first.__getitem__)


@pytest.mark.rule(8)
def test_equal_words_are_told_apart_by_second_ones(monkeypatch):
    second = [3, 1, 2, 0, 5, 4]

    def words(_key, _draw, start, count):
        return np.array(second if start == 2**63 else [7, 7, 2, 7, 9, 2], dtype=np.uint64)[:count]

    monkeypatch.setattr("dtjob_trainer.mechanism.records.scatter.words", words)
    assert random_order(b"", 0, 6).tolist() == [2, 5, 3, 1, 0, 4]


# What is read and drawn without a record x, and with it: where all records are read, where x takes
# the place of one that is not drawn, and where it is read whether drawn or not.
WITH_ANOTHER = {
    "all are read": (of([0, 1], [1]), of([0, 1, 2], [1, 2]), 4),
    "at the front": (of([11, 12], [11]), of([10, 11, 12], [10, 11]), 4),
    "in the place of another": (of([1, 2, 5], [1, 5]), of([1, 4, 5], [1, 4, 5]), 4),
    "the last free slot": (of([0, 1, 2], [0, 2]), of([0, 2, 3], [0, 2, 3]), 3),
}


@pytest.mark.rule(8)
@pytest.mark.parametrize("case", WITH_ANOTHER)
def test_a_record_more_moves_no_other(case, every_order):
    """The law of the others' slots is the same, and the new one's is uniform on the free ones."""
    without, with_it, count = WITH_ANOTHER[case]
    room = Layout(1, 1, count)
    (x,) = set(with_it.ids[with_it.drawn].tolist()) - set(without.ids[without.drawn].tolist())

    def others(reading):
        slots = places(scatter(b"", 0, reading, room))
        slots.pop(x, None)
        return tuple(sorted(slots.items()))

    expected = every_order(count, lambda: others(without))
    assert every_order(count, lambda: others(with_it)) == expected

    def both():
        slots = places(scatter(b"", 0, with_it, room))
        return slots.pop(x), tuple(sorted(slots.items()))

    assert len(set(every_order(count, both).values())) == 1


@pytest.mark.rule(8)
def test_on_overflow_each_record_may_be_the_one_too_many(every_order):
    room = Layout(1, 1, 3)
    reading = of([5, 6, 7, 8], [5, 6, 7, 8])
    found = every_order(4, lambda: tuple(sorted(places(scatter(b"", 0, reading, room)).items())))
    assert set(found.values()) == {1}
    assert len(found) == 24
    # The first extra row takes the fourth: the rest of its micro-batch is padding.
    assert scatter(b"", 0, reading, room).ids.shape == (1, 2, 3)


@pytest.mark.rule(8)
@pytest.mark.parametrize("excess", [0, 1, 6, 7, 23])
def test_no_record_is_dropped(excess):
    room = Layout(2, 2, 3)
    ids = list(range(100, 100 + room.slots + excess))
    slots = scatter(KEYS.order, 3, of(ids, ids), room)
    assert sorted(places(slots)) == ids
    assert slots.ids.shape == (2, 2 + -(-excess // 6), 3)
    assert np.array_equal(slots.drawn, slots.ids != PADDING)


@pytest.mark.rule(8)
def test_slots_are_uniform():
    """χ² over the slots of a drawn record, of one that is not, and of padding."""
    draws, room = 600, Layout(2, 3, 2)
    reading = of([3, 4, 9], [4])
    slots = [scatter(KEYS.order, draw, reading, room).ids.reshape(-1) for draw in range(draws)]
    counts = np.array([[(s == i).sum() for s in np.transpose(slots)] for i in (3, 4, 9)])
    expected = draws / room.slots
    low, high = stats.chi2.ppf([ALARM / 6, 1 - ALARM / 6], room.slots - 1)
    for statistic in ((counts - expected) ** 2 / expected).sum(axis=1):
        assert low < statistic < high


@pytest.mark.rule(2, 8)
@pytest.mark.parametrize(("other", "later"), [("order", 1), ("sampling", 0)])
def test_orders_of_draws_and_keys_are_independent(other, later):
    """How often two orders agree in a place has mean 1 and variance 1 for each pair."""
    draws, other_key = 400, getattr(KEYS, other)
    agreements = sum(
        (random_order(KEYS.order, c, 40) == random_order(other_key, c + later, 40)).sum()
        for c in range(draws)
    )
    assert 2 * stats.norm.sf(abs(agreements - draws) / np.sqrt(draws)) > ALARM


@pytest.mark.rule(8)
def test_what_is_read_tells_nothing_of_how_many_are_drawn():
    """χ² over the 12 ordered traces of 2 of 4 records, for draws of none, of one and of two."""
    draws, room = 600, Layout(1, 1, 2)
    threshold = int(0.3 * 2**64)
    traces = list(map(list, itertools.permutations(range(4), 2)))
    counts = np.zeros((3, len(traces)))
    for draw in range(draws):
        reading = least_words(KEYS.sampling, draw, 4, threshold, room.slots)
        drawn = int(reading.drawn.sum())
        if drawn <= room.slots:
            trace = scatter(KEYS.order, draw, reading, room).ids.reshape(-1).tolist()
            counts[drawn, traces.index(trace)] += 1
    assert counts.sum(axis=1).min() > 100
    expected = counts.sum(axis=1, keepdims=True) / len(traces)
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], 3 * (len(traces) - 1))
    assert low < ((counts - expected) ** 2 / expected).sum() < high
