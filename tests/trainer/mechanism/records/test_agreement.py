"""A draw names records: an id has to mean the same one on every rank (Rule 3)."""

import random

import numpy as np
import pytest
import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.records.agreement import agreed_length
from dtjob_trainer.task import ArraySpec, TaskError
from tests.support.mechanism.layouts import run_world
from tests.support.mechanism.models import Records, make_task, rows
from tests.support.mechanism.ranks import Augmented, Flipped, Stream, compare_records


@pytest.mark.rule(3)
@pytest.mark.processes
def test_ranks_that_see_different_records_are_refused():
    for rank, (found, *generators) in enumerate(run_world(compare_records, 2)):
        assert found == {
            "same": True,
            "nearly the same": True,
            "other order": False,
            "flipped by a seeded generator": True,
            "flipped by another": "refused by itself",
            "all broken": True,
            "broken on one rank": False,
            "opened without a seed": True,
            "whatever comes next": "refused by itself",
        }
        torch.manual_seed(rank)
        random.seed(rank)
        np.random.seed(rank)
        untouched = [torch.rand(()).item(), random.random(), np.random.random()]
        assert generators == untouched, "training found other random numbers"


@pytest.mark.parametrize("kind", [Records, Flipped])
def test_records_that_depend_on_their_index_are_taken_alone_too(kind):
    assert agreed_length(kind(rows()), make_task().example_spec, Group()) == 64


@pytest.mark.rule(3)
@pytest.mark.parametrize("seed", range(5))
def test_a_stream_behind_the_index_is_refused(seed):
    """One record could be in every draw, and twice in one. Its rare labels don't hide it."""
    stream = Stream(rows(1000, seed))
    stream.arrays["y"] = (np.random.default_rng(seed).random(1000) < 0.2).astype(np.int64)
    with pytest.raises(TaskError, match="each time the same index is read") as caught:
        agreed_length(stream, make_task().example_spec, Group())
    assert caught.value.reason is Reason.DATASET_INVALID


def test_constant_and_single_records_are_taken():
    spec = {"x": ArraySpec((6,), "float32", -1, 1)}
    assert agreed_length(Records({"x": np.ones((9, 6))}), spec, Group()) == 9
    assert agreed_length(Records(rows(1)), make_task().example_spec, Group()) == 1


class OwnGenerator(Records):
    """Augments by a generator that all reads share: one record more moves those read later."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.generator = np.random.default_rng(0)

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return {**record, "x": record["x"] * self.generator.choice([-1, 1])}


class Neighbouring(Records):
    """Mixes in whatever was read before, but for the first: the same in the same order."""

    before = None

    def __getitem__(self, index):
        record = super().__getitem__(index)
        before, self.before = self.before, record["x"]
        return {
            **record,
            "x": record["x"] if before is None or index == 0 else (record["x"] + before) / 2,
        }


@pytest.mark.rule(3, 8)
@pytest.mark.parametrize("kind", [Augmented, OwnGenerator, Neighbouring])
def test_a_field_that_follows_from_what_was_read_before_is_refused(kind):
    """Though another, such as the label, does not."""
    with pytest.raises(TaskError, match=r"is read, in x: .* which each read finds in a state"):
        agreed_length(kind(rows()), make_task().example_spec, Group())


def test_a_generator_that_is_made_of_the_index_is_taken():
    class ByIndex(Records):
        def __getitem__(self, index):
            noise = np.random.default_rng(index).random(6)
            record = super().__getitem__(index)
            return {**record, "x": (record["x"] + noise).astype(np.float32)}

    assert agreed_length(ByIndex(rows()), make_task().example_spec, Group()) == 64


class Seeding(Records):
    """Augments each record by its own number, as tutorials do."""

    def __getitem__(self, index):
        torch.manual_seed(index)
        np.random.seed(index)
        return super().__getitem__(index)


@pytest.mark.rule(2)
def test_records_that_seed_a_generator_are_refused():
    with pytest.raises(TaskError, match="seeds numpy's and torch's global generator") as caught:
        agreed_length(Seeding(rows()), make_task().example_spec, Group())
    assert caught.value.reason is Reason.DATASET_INVALID


class Unreadable(Records):
    def __getitem__(self, index):
        raise OSError("torn file")


@pytest.mark.rule(20)
def test_a_first_record_that_cannot_be_read_ends_nothing():
    assert agreed_length(Unreadable(rows()), make_task().example_spec, Group()) == 64
