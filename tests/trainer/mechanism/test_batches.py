"""Rules 8 and 20: fixed shapes with masks; a bad record contributes zero and nobody hears of it."""

import warnings

import numpy as np
import pytest
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.batches import BatchLoader, open_records, synthetic_examples
from dtjob_trainer.task import DTYPES, ArraySpec, TaskError
from tests.support.mechanism.models import FEATURES, Records, make_task, rows

CPU = torch.device("cpu")
SPEC = make_task().example_spec


def load(records, ids, count, size, **options):
    loader = BatchLoader(records, SPEC, size, CPU, **options)
    return list(loader.micro_batches(np.array(ids, dtype=np.int64), count))


@pytest.mark.rule(8)
def test_shape_and_number_do_not_depend_on_the_draw():
    for ids in ([], [3], [3, 1, 4, 1, 5], list(range(8))):
        batches = load(Records(rows()), ids, 3, 4)
        assert [tuple(b.fields["x"].shape) for b in batches] == [(4, FEATURES)] * 3
        assert [b.fields["y"].shape for b in batches] == [(4,)] * 3
        mask = torch.cat([b.mask for b in batches])
        assert mask.tolist() == [True] * len(ids) + [False] * (12 - len(ids))


def test_rows_are_the_records_in_order():
    records = Records(rows())
    batches = load(records, [9, 2, 7], 2, 2)
    x = torch.cat([b.fields["x"] for b in batches])[:3]
    assert np.array_equal(x.numpy(), records.arrays["x"][[9, 2, 7]])
    assert torch.cat([b.fields["y"] for b in batches]).dtype == torch.int64


def test_padding_is_one_synthetic_example_within_the_ranges_and_never_zeros():
    (batch,) = load(Records(rows()), [], 1, 5)
    x = batch.fields["x"]
    assert (x == x[0]).all()
    assert (x != 0).all()
    assert ((x >= -1) & (x <= 1)).all()


@pytest.mark.rule(8)
def test_no_record_is_dropped():
    with pytest.raises(ValueError, match="don't fit"):
        load(Records(rows()), range(9), 2, 4)


class Broken:
    """Every record but the first two is bad in its own way."""

    BAD = (
        {"x": np.full(FEATURES, np.nan, np.float32), "y": 0},
        {"x": np.full(FEATURES, np.inf, np.float32), "y": 0},
        {"x": np.full(FEATURES, 1.5, np.float32), "y": 0},
        {"x": np.full(FEATURES, 1e300), "y": 0},
        {"x": np.zeros(FEATURES + 1, np.float32), "y": 0},
        {"x": np.zeros((), np.float32), "y": 0},
        {"x": np.zeros(FEATURES, np.float32), "y": 3},
        {"x": np.zeros(FEATURES, np.float32), "y": -1},
        {"x": np.zeros(FEATURES, np.float32), "y": 1.0},
        {"x": np.zeros(FEATURES, np.float32), "y": np.uint64(2**64 - 1)},
        {"x": np.zeros(FEATURES, np.complex64), "y": 0},
        {"x": ["a"] * FEATURES, "y": 0},
        {"x": np.zeros(FEATURES, np.float32)},
        None,
        OSError("torn file"),
        ValueError("cannot decode"),
        MemoryError("a header that lies"),
    )

    def __len__(self):
        return 2 + len(self.BAD)

    def __getitem__(self, index):
        if index < 2:
            return {"x": np.full(FEATURES, 0.5), "y": np.int32(index)}
        record = self.BAD[index - 2]
        if isinstance(record, Exception):
            raise record
        return record


@pytest.mark.rule(20)
def test_a_bad_record_becomes_padding_silently(capfd):
    records = Broken()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (batch,) = load(records, range(len(records)), 1, len(records))
    assert batch.mask.tolist() == [True, True] + [False] * len(Broken.BAD)
    (padding,) = load(records, [], 1, 1)
    for name in SPEC:
        assert (batch.fields[name][2:] == padding.fields[name]).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.rule(20)
def test_who_opted_out_hears_of_each_bad_record():
    faults: dict[int, str] = {}
    load(Broken(), range(19), 1, 19, on_bad_record=faults.__setitem__)
    assert sorted(faults) == list(range(2, 19))
    assert "x has shape (7,), not (6,)" in faults[6]
    assert "torn file" in faults[16]
    assert "y leaves its range [0, 2]" in faults[8]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int8", "int32", "int64"])
def test_integers_and_floats_convert_where_nothing_is_lost(dtype):
    spec = {"v": ArraySpec((2,), dtype, 0, 100)}
    loader = BatchLoader([{"v": [7, 100]}, {"v": [7, 300]}], spec, 2, CPU)
    (batch,) = loader.micro_batches(np.array([0, 1]), 1)
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


def test_a_data_set_must_be_map_style_and_not_empty():
    for records, said in ((iter([]), "map-style"), ([], "no records")):
        with pytest.raises(TaskError, match=said) as caught:
            open_records(make_task(records=records), CPU)
        assert caught.value.reason is Reason.DATASET_INVALID
    assert len(open_records(make_task(), CPU)) == 64
