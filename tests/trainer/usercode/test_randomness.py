"""Which generators a call seeds is told from what it draws."""

import random

import numpy as np
import pytest
import torch

from dtjob_trainer.usercode.randomness import seeded_by

CPU = torch.device("cpu")


def forked() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.rand(3)


CALLS = {
    "nothing": (lambda: None, []),
    "draws": (lambda: (torch.rand(2), random.random(), np.random.random()), []),
    "torch": (lambda: torch.manual_seed(7), ["torch's"]),
    "torch, then draws": (lambda: (torch.manual_seed(7), torch.rand(9)), ["torch's"]),
    "numpy": (lambda: np.random.seed(7), ["numpy's"]),
    "Python": (lambda: random.seed(7), ["Python's"]),
    "all": (
        lambda: (torch.manual_seed(7), np.random.seed(7), random.seed(7)),
        ["Python's", "numpy's", "torch's"],
    ),
    "puts it back": (forked, []),
    "one of its own": (lambda: np.random.default_rng(7).random(), []),
}


@pytest.mark.rule(2)
@pytest.mark.parametrize(("call", "seeded"), CALLS.values(), ids=CALLS)
def test_a_generator_that_is_set_is_named(call, seeded):
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    assert seeded_by(call, CPU) == seeded
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]
