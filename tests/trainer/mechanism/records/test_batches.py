"""Rules 8 and 20: fixed shapes with masks; a bad record contributes zero and nobody hears of it."""

import random
import warnings

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.records.batches import BatchLoader, synthetic_examples
from dtjob_trainer.mechanism.records.scatter import PADDING
from dtjob_trainer.task import DTYPES, ArraySpec
from tests.support.mechanism.bad_records import BAD, Broken
from tests.support.mechanism.models import FEATURES, KEYS, Records, make_task, rows

CPU = torch.device("cpu")
SPEC = make_task().example_spec


def load(records, ids, size=None, drawn=None, draw=0, **options):
    """One micro-batch of `size` rows, the first of which hold these records."""
    size = len(ids) if size is None else size
    loader = BatchLoader(records, SPEC, KEYS.loading, CPU, **options)
    held = np.full(size, PADDING)
    held[: len(ids)] = ids
    return loader.micro_batch(draw, held, held != PADDING if drawn is None else np.array(drawn))


@pytest.mark.rule(8)
def test_the_shape_does_not_depend_on_the_draw():
    for ids in ([], [3], [3, 1, 4, 5], list(range(8))):
        batch = load(Records(rows()), ids, 8)
        assert batch.fields["x"].shape == (8, FEATURES)
        assert batch.fields["y"].shape == (8,)
        assert batch.mask.tolist() == [True] * len(ids) + [False] * (8 - len(ids))


def test_rows_are_the_records_in_order():
    records = Records(rows())
    batch = load(records, [9, 2, 7], 4)
    assert np.array_equal(batch.fields["x"][:3].numpy(), records.arrays["x"][[9, 2, 7]])
    assert batch.fields["y"].dtype == torch.int64


@pytest.mark.rule(8)
def test_a_record_that_is_not_drawn_is_read_and_becomes_padding():
    records = Records(rows())
    batch = load(records, [9, 2, 7], 5, drawn=[True, False, True, False, False])
    assert records.read == [9, 2, 7]
    assert batch.mask.tolist() == [True, False, True, False, False]
    padding = load(records, [], 1)
    for name, values in batch.fields.items():
        assert (values[[1, 3, 4]] == padding.fields[name]).all()
        assert torch.equal(values[[0, 2]], load(records, [9, 7]).fields[name])


@pytest.mark.rule(8, 20)
def test_a_record_that_is_not_drawn_goes_the_whole_way():
    """Whoever opted out hears of it as of one that is drawn: it was converted and checked."""
    faults: dict[int, str] = {}
    ids = range(len(Broken()))
    load(Broken(), ids, drawn=[False] * len(ids), on_bad_record=faults.__setitem__)
    assert sorted(faults) == list(range(2, len(ids)))


@pytest.mark.rule(8, 20)
def test_a_bad_record_that_is_not_drawn_changes_nothing():
    count = 2 + len(BAD)
    drawn = [True, True] + [False] * len(BAD)
    found, expected = load(Broken(), range(count), drawn=drawn), load(Broken(), [0, 1], count)
    assert torch.equal(found.mask, expected.mask)
    for name in SPEC:
        assert torch.equal(found.fields[name], expected.fields[name])


DRAWS = {
    "torch": lambda: torch.rand(()).item(),
    "numpy": np.random.rand,
    "python": random.random,
}


class Augmented(Records):
    """Some of its records are scaled by random numbers of one or all generators."""

    def __init__(self, arrays, generators=tuple(DRAWS), those=range(64)):
        super().__init__(arrays)
        self.generators, self.those = generators, those

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if index not in self.those:
            return record
        factor = np.float32(np.prod([DRAWS[name]() for name in self.generators]))
        for name in self.generators * index:  # some take more numbers than others
            DRAWS[name]()
        return {**record, "x": record["x"] * factor}


@pytest.mark.rule(8)
@pytest.mark.parametrize("generator", DRAWS)
@pytest.mark.parametrize("those", [range(64), [4]])
@pytest.mark.parametrize("ids", [[4], [7, 4, 9], [12, 4]])
def test_a_record_s_random_numbers_are_those_of_its_draw_and_id(ids, generator, those):
    """Whatever was read before, in whatever row it is, and though no other record takes any."""

    def row(draw, ids):
        records = Augmented(rows(), [generator], those)
        return load(records, ids, 5, draw=draw).fields["x"][ids.index(4)]

    assert torch.equal(row(0, ids), row(0, [4, 1, 2]))
    assert not torch.equal(row(1, ids), row(0, ids))


@pytest.mark.rule(8)
def test_a_record_is_read_once_but_where_random_numbers_are_first_taken():
    records, alone = (Augmented(rows(), those=[7, 4]) for _ in range(2))
    loader = BatchLoader(records, SPEC, KEYS.loading, CPU)
    for ids in ([1, 2, 3], [1, 7, 3], [4, 7, 3]):
        found = loader.micro_batch(0, np.array(ids), np.ones(3, dtype=bool)).fields["x"]
        assert torch.equal(found, torch.cat([load(alone, [i]).fields["x"] for i in ids]))
    assert records.read == [1, 2, 3, 1, 7, 3, 1, 7, 3, 4, 7, 3]


def test_padding_is_one_synthetic_example_within_the_ranges_and_never_zeros():
    batch = load(Records(rows()), [], 5)
    x = batch.fields["x"]
    assert (x == x[0]).all()
    assert (x != 0).all()
    assert ((x >= -1) & (x <= 1)).all()


@pytest.mark.rule(20)
def test_a_bad_record_becomes_padding_silently(capfd):
    records = Broken()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = load(records, range(len(records)))
    assert batch.mask.tolist() == [True, True] + [False] * len(BAD)
    padding = load(records, [], 1)
    for name in SPEC:
        assert (batch.fields[name][2:] == padding.fields[name]).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.rule(20)
def test_who_opted_out_hears_of_each_bad_record():
    faults: dict[int, str] = {}
    load(Broken(), range(19), on_bad_record=faults.__setitem__)
    assert sorted(faults) == list(range(2, 19))
    assert "x has shape (7,), not (6,)" in faults[6]
    assert "torn file" in faults[16]
    assert "y leaves its range [0, 2]" in faults[8]
    assert [faults[index] for index in (2, 3, 4)] == [
        "x is not finite",
        "x is not finite",
        "x leaves its range [-1.0, 1.0]",
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int8", "int32", "int64"])
def test_integers_and_floats_convert_where_nothing_is_lost(dtype):
    spec = {"v": ArraySpec((2,), dtype, 0, 100)}
    loader = BatchLoader([{"v": [7, 100]}, {"v": [7, 300]}], spec, KEYS.loading, CPU)
    batch = loader.micro_batch(0, np.array([0, 1]), np.array([True, True]))
    assert batch.fields["v"][0].tolist() == [7, 100]
    assert batch.fields["v"].dtype == getattr(torch, dtype)
    assert batch.mask.tolist() == [True, False]  # 300 mod 256 = 44 is in the range: not wrapped


def test_synthetic_examples_cover_the_range_of_every_field():
    spec = {
        "a": ArraySpec((3,), "float32", -2.0, 5.0),
        "b": ArraySpec((), "int64", 4, 6),
        "c": ArraySpec((2,), "bool", 0, 1),
    }
    arrays = synthetic_examples(spec, 1000, np.random.default_rng(0))
    assert arrays["a"].shape == (1000, 3)
    assert -2 <= arrays["a"].min() < -1.9
    assert 4.9 < arrays["a"].max() <= 5
    assert set(arrays["b"].tolist()) == {4, 5, 6}
    assert arrays["c"].dtype == bool


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_synthetic_examples_of_the_whole_range(dtype):
    low, high = DTYPES[dtype]
    values = synthetic_examples(
        {"v": ArraySpec((50,), dtype, low, high)}, 2, np.random.default_rng(0)
    )["v"]
    assert values.dtype == dtype
    assert np.isfinite(values).all()
    assert values.min() < values.max()
