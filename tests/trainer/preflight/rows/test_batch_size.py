"""Rule 5: a loss follows from no number of rows, whatever random numbers a pass takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.preflight.rows import batch_size
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, Hidden, rows
from tests.support.mechanism.models import cross_entropy, make_task


def check(task: Task, large: int = 3) -> None:
    batch = rows(4 + large)
    one, other = ({name: each[a:b] for name, each in batch.items()} for a, b in ((0, 4), (4, None)))
    batch_size.check(task, task.model(), one, other)


def attention(h: torch.Tensor) -> torch.Tensor:
    heads = h.view(-1, 1, 4, 2)
    seen: torch.Tensor = functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.3)
    return seen.reshape(-1, 8)


def chosen(h: torch.Tensor) -> torch.Tensor:
    return h.gather(1, h.detach().softmax(1).multinomial(8))


RANDOM: dict[str, Function] = {
    "nothing": torch.tanh,
    "dropout": lambda h: functional.dropout(h, 0.5),
    "dropout as GPUs have it": lambda h: torch.native_dropout(h, 0.5, True)[0],
    "dropout of channels": lambda h: functional.dropout2d(h[:, :, None, None], 0.3)[:, :, 0, 0],
    "attention": attention,
    "normal numbers": lambda h: h + torch.randn_like(h),
    "normal numbers of a mean": lambda h: h + torch.empty(len(h), 8).normal_(-4.0, 2.0),
    "uniform numbers": lambda h: h * torch.rand(len(h), 1) + torch.rand_like(h),
    "of a range that has no 0": lambda h: h * torch.empty(len(h), 1).uniform_(-3, -2).neg().log(),
    "whole numbers": lambda h: h * torch.randint(3, 9, (len(h), 1)).sub(2).log(),
    "waiting times": lambda h: h * torch.empty(len(h), 1).exponential_().log(),
    "coins": lambda h: h * torch.bernoulli(torch.full((len(h), 1), 0.5)),
    "a choice": chosen,
    "an order": lambda h: h * torch.randperm(len(h))[:, None],
    "slopes": lambda h: functional.rrelu(h, training=True),
    "numbers of a generator": lambda h: (
        h * torch.rand(len(h), 1, generator=torch.Generator().manual_seed(len(h)))
    ),
}


def task_of(function: Function, losses: Callable[..., torch.Tensor] = cross_entropy) -> Task:
    return make_task(model=lambda: Hidden(function), losses=losses)


def divided(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return cross_entropy(model, batch) / len(batch["y"])


@pytest.mark.rule(5)
@pytest.mark.parametrize("name", RANDOM)
def test_losses_divided_by_the_rows_are_refused_beside_random_numbers(name: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(task_of(RANDOM[name], divided))
    assert caught.value.reason == "ModelRefused"
    words = "another loss in a larger batch; don't divide by the number of rows"
    assert words in caught.value.message


@pytest.mark.rule(5)
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_alone_are_no_other_loss(name: str) -> None:
    check(task_of(RANDOM[name]))


@pytest.mark.rule(5)
@pytest.mark.parametrize("large", [1, 2, 9])
def test_batches_of_any_size_are_compared(large: int) -> None:
    with pytest.raises(TaskError, match="larger batch"):
        check(task_of(RANDOM["normal numbers"], divided), large)


def redrawn(h: torch.Tensor) -> torch.Tensor:
    """Until each row has something left: with one number for all there is no end."""
    while True:
        mask = torch.rand_like(h) < 0.3
        if bool(mask.any(1).all()):
            return h * mask


def test_a_pass_that_never_ends_is_refused() -> None:
    with pytest.raises(TaskError) as caught:
        check(task_of(redrawn))
    assert "keeps a pass from its end" in str(caught.value)
