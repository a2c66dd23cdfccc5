"""A draw names records: an id has to mean the same one on every rank (Rule 3)."""

import random

import numpy as np
import pytest
import torch
from layouts import run_world
from ranks import compare_records


@pytest.mark.processes
def test_rule_3_ranks_that_see_different_records_are_refused():
    for rank, (found, *generators) in enumerate(run_world(compare_records, 2)):
        assert found == {
            "same": True,
            "nearly the same": True,
            "other order": False,
            "flipped by a seeded generator": True,
            "flipped by another": True,
            "other order, flipped by another": False,
            "all broken": True,
            "broken on one rank": False,
            "opened without a seed": True,
        }
        torch.manual_seed(rank)
        random.seed(rank)
        np.random.seed(rank)
        untouched = [torch.rand(()).item(), random.random(), np.random.random()]
        assert generators == untouched, "training found other random numbers"
