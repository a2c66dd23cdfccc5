"""Rules 4 and 21: what the validator accepts gives each example's own gradient."""

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.records.batches import synthetic_examples, to_tensors
from dtjob_trainer.preflight import probes
from dtjob_trainer.preflight.task_validation import preflight
from tests.support.zoo.alone import alone, by_hooks
from tests.support.zoo.everything import ACCEPTED

pytestmark = pytest.mark.models

ROWS = 5
#: Of a parameter's gradient, and of the whole one: what fp32 rounds.
TOLERANCE, TOLERANCE_OF_ALL = 1e-4, 1e-6


@pytest.mark.rule(4, 21)
@pytest.mark.parametrize("entry", ACCEPTED, ids=lambda entry: entry.name)
def test_what_is_accepted_gives_each_examples_gradient(entry):
    task = entry.task()
    preflight(task)

    model = task.model().train()
    probes.move_off_initial_weights(model)
    examples = synthetic_examples(task.example_spec, ROWS, np.random.default_rng(7))
    batch = to_tensors(examples, torch.device("cpu"))
    found, coins = by_hooks(task, model, batch)
    wanted = alone(task, model, batch, coins)
    assert bool(coins) == entry.random
    assert found.keys() == wanted.keys()
    whole = torch.cat(list(wanted.values()), dim=1).norm(dim=1)
    for name, gradient in found.items():
        off = (gradient - wanted[name]).norm(dim=1)
        allowed = TOLERANCE * wanted[name].norm(dim=1) + TOLERANCE_OF_ALL * whole
        assert (off <= allowed).all(), f"{name}: {(off / allowed).tolist()}"
