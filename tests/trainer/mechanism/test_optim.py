"""Learning rates are functions of the step alone (Rule 5)."""

import math

import pytest
import torch

from dtjob_trainer.mechanism.optim import LearningRate, make_optimizer


def test_constant_linear_and_cosine_after_warmup():
    constant = LearningRate(2.0, "Constant", 10, warmup_steps=4)
    assert [constant(s) for s in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    linear = LearningRate(2.0, "Linear", 8, warmup_steps=4)
    assert [linear(s) for s in range(3, 8)] == [2.0, 2.0, 1.5, 1.0, 0.5]
    cosine = LearningRate(2.0, "Cosine", 4)
    assert [cosine(s) for s in range(4)] == pytest.approx(
        [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]
    )


@pytest.mark.parametrize("schedule", ["Constant", "Linear", "Cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_rates_are_positive_and_at_most_the_peak(schedule, warmup):
    rate = LearningRate(0.3, schedule, 10, warmup)
    assert all(0 < rate(step) <= 0.3 for step in range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, "Constant", 10), "learningRate"),
        ((float("nan"), "Constant", 10), "learningRate"),
        ((1.0, "Plateau", 10), "schedule"),
        ((1.0, "Linear", 10, 10), "warmupSteps"),
        ((1.0, "Linear", 10, -1), "warmupSteps"),
    ],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(*arguments)


def test_optimizers_by_name():
    p = [torch.nn.Parameter(torch.ones(2))]
    assert isinstance(make_optimizer("sgd", p), torch.optim.SGD)
    assert type(make_optimizer("adam", p)) is torch.optim.Adam
    assert type(make_optimizer("adamw", p)) is torch.optim.AdamW
    with pytest.raises(ValueError, match="optimizer 'lbfgs'"):
        make_optimizer("lbfgs", p)
