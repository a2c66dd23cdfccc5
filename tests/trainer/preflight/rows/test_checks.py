"""Rules 8 and 21: what is tried with all random numbers at an end of their range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.preflight.rows import checks
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import hidden, jittered
from tests.support.mechanism.models import CLASSES, cross_entropy, make_task


def check(task: Task) -> None:
    checks.check_whole(task, task.model(), torch.device("cpu"), 4)


@pytest.mark.rule(8, 21)
def test_an_error_that_is_caught_is_found_before_a_row_of_nan_raises_it_for_ever() -> None:
    task = hidden(jittered)
    with pytest.raises(TaskError, match=r"catches errors at .* in jittered and goes"):
        checks.check_isolated(task, task.model(), torch.device("cpu"), whole=True)


def by_day(model: nn.Module, batch: Any) -> torch.Tensor:
    """Losses weighted by how often each of seven days is in the batch, counted one by one."""
    day = (batch["x"][:, 0] * 3 + 3.5).long()
    often = sum(functional.one_hot(each, 7) for each in day)
    return cross_entropy(model, batch) * torch.where(often[day] > 16, 0.5, 1.0)  # type: ignore[index]


@pytest.mark.rule(8, 21)
def test_rows_are_counted_where_classes_are_as_many_as_rows_are_else_tried_with() -> None:
    task = make_task(losses=by_day)
    with pytest.raises(TaskError, match=r"in by_day .* of several rows"):
        checks.check_isolated(task, task.model(), torch.device("cpu"), whole=False)


class OverDays(nn.Module):
    """A recurrence over as many days, with those of all rows first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(1, len(x))
        for day in x.transpose(0, 1).mean(2):
            state = 0.9 * state + day[None]
        scores: torch.Tensor = self.last(self.first(state.t()))
        return scores


@pytest.mark.rule(21)
@pytest.mark.parametrize("days", [5, 7, 11, 13])
def test_as_many_places_as_rows_are_accepted(days: int) -> None:
    task = make_task(model=OverDays, shape=(days, 2))
    checks.check_isolated(task, task.model(), torch.device("cpu"), whole=True)


def mixed_up(coins: Any, turned: Any = lambda x: x.roll(1, 0)) -> Task:
    """Mixes the inputs of some rows with others'."""

    def losses(model: nn.Module, batch: Any) -> torch.Tensor:
        x = batch["x"]
        mixed = torch.where(coins(len(x)), 0.7 * x + 0.3 * turned(x), x)
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


CHOOSING = {
    "turned over": lambda rows: torch.rand(rows, 1) < 1e-5,
    "a whole number": lambda rows: torch.randint(100000, (rows, 1)) == 7,
    "a normal number": lambda rows: torch.randn(rows, 1) > 6,
    "a number in the middle": lambda rows: (torch.rand(rows, 1) * 1e5).long() == 57,
    "a choice by weights": lambda rows: (
        torch.tensor([1.0, 1e-6]).expand(rows, 2).multinomial(1) == 1
    ),
}


@pytest.mark.models
@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", CHOOSING)
def test_a_choice_that_is_seldom_made_is_tried(name: str) -> None:
    """Also of the row in the middle, which turning over leaves in its place."""
    with pytest.raises(TaskError, match="mixes the examples of a batch"):
        check(mixed_up(CHOOSING[name], lambda x: x.flip(0)))


def shifted(y: torch.Tensor) -> torch.Tensor:
    """No operator runs along the rows."""
    return torch.cat([y[1:], y[:1]])


EXCHANGED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "a choice": lambda x, y: torch.where(torch.rand(len(x)) < 1e-5, shifted(y), y),
    "a choice within another": lambda x, y: torch.where(
        x > 0.99999, y, torch.where(x < -0.99999, shifted(y), y)
    ),
    "numbers of other kinds": lambda x, y: torch.where(x > 0.99999, shifted(y).int(), y),
}


@pytest.mark.models
@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("of_label", EXCHANGED.values(), ids=EXCHANGED)
def test_whole_numbers_that_are_seldom_exchanged_are_refused(
    of_label: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """There is no NaN in them."""

    def losses(model: nn.Module, batch: Any) -> torch.Tensor:
        label = of_label(batch["x"][:, 0], batch["y"])
        return cross_entropy(model, {**batch, "y": label})

    with pytest.raises(TaskError, match=r"where torch\.where chooses what it seldom does"):
        check(make_task(losses=losses))


@pytest.mark.models
def test_choices_within_a_row_are_accepted() -> None:
    def losses(model: nn.Module, batch: Any) -> torch.Tensor:
        x = batch["x"]
        kept = torch.where(torch.rand_like(x) < 0.01, 0.0, x.masked_fill(x > 0.9, 0.9))
        return cross_entropy(model, {**batch, "x": kept})

    check(make_task(losses=losses))
