"""Rules 8 and 21: what is tried with all random numbers at an end of their range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dtjob_trainer.preflight.rows import checks
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.models import cross_entropy, make_task


def check(task: Task) -> None:
    checks.check_whole(task, task.model(), torch.device("cpu"), 4)


def mixed_up(coins: Any) -> Task:
    """Mixes the inputs of some rows with their neighbours'."""

    def losses(model: nn.Module, batch: Any) -> torch.Tensor:
        x = batch["x"]
        mixed = torch.where(coins(len(x)), 0.7 * x + 0.3 * x.roll(1, 0), x)
        return cross_entropy(model, {**batch, "x": mixed})

    return make_task(losses=losses)


SELDOM = {
    "a small number": lambda rows: torch.rand(rows, 1) < 1e-5,
    "a large number": lambda rows: torch.rand_like(torch.ones(rows, 1)) > 1 - 1e-5,
    "numbers in place": lambda rows: torch.empty(rows, 1).uniform_() < 1e-5,
    "coins that fall": lambda rows: torch.full((rows, 1), 1e-5).bernoulli() > 0,
    "coins that don't": lambda rows: torch.empty(rows, 1).bernoulli_(1 - 1e-5) < 1,
}


@pytest.mark.models
@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", SELDOM)
def test_rows_that_are_seldom_mixed_are_refused(name: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(mixed_up(SELDOM[name]))
    assert "mixes the examples of a batch" in caught.value.message
    assert "NaN in one example moved" in caught.value.message
