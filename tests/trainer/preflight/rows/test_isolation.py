"""Rules 8 and 21: one slot's content moves no other slot at the run's own number of rows."""

from __future__ import annotations

import pytest
import torch

from dtjob_trainer.preflight.rows import isolation
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, hidden
from tests.support.mechanism.models import CLASSES, FEATURES, make_task


def check(task: Task, rows: int, *, equal: bool = False) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, other = (
        {
            "x": torch.rand(rows, FEATURES, generator=generator),
            "y": torch.randint(CLASSES, (rows,), generator=generator),
        }
        for _ in range(2)
    )
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        passes.settle(batch)
        if equal:
            isolation.check_equal(passes, batch, other)
        else:
            isolation.check(passes, batch, other, {})


def chosen_by_shape(h: torch.Tensor) -> torch.Tensor:
    """Another kernel where there are many rows."""
    return h + 1e-6 * h.roll(1, 0) if len(h) > 40 else h


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_slots_of_their_own_are_accepted(rows: int) -> None:
    check(make_task(), rows)


@pytest.mark.rule(8, 21)
def test_rows_that_meet_in_large_batches_only() -> None:
    task = hidden(chosen_by_shape)
    check(task, 40)
    with pytest.raises(TaskError, match=r"in chosen_by_shape.*another example in row 0 of 41"):
        check(task, 41)


def of_experts(h: torch.Tensor) -> torch.Tensor:
    """Two experts, of which each takes 28 rows, the first ones."""
    which = torch.nn.functional.one_hot((h[:, 0] > -0.4).long(), 2)
    return h * ((which.cumsum(0) <= 28) * which).sum(1, keepdim=True)


def of_experts_backwards(h: torch.Tensor) -> torch.Tensor:
    """The same, the last ones."""
    return of_experts(h.flip(0)).flip(0)


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize(
    ("function", "end"), [(of_experts, "first"), (of_experts_backwards, "last")]
)
def test_rows_that_compete_where_all_are_equal(function: Function, end: str) -> None:
    """Of 32 random rows neither expert gets more than 28."""
    task = hidden(function)
    check(task, 32)
    check(task, 28, equal=True)
    words = f"in of_experts.*8 other examples, the {end} ones, among 32 equal ones"
    with pytest.raises(TaskError, match=words):
        check(task, 32, equal=True)


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_equal_rows_of_their_own_are_accepted(rows: int) -> None:
    check(make_task(), rows, equal=True)


def until_equal(h: torch.Tensor) -> torch.Tensor:
    """Goes on while rows are the same."""
    while (h - h[:1]).abs().amax() < 1e-3:
        h = h * 1.0
    return h


@pytest.mark.rule(21)
def test_a_pass_over_equal_rows_that_does_not_end_is_refused_by_line() -> None:
    with pytest.raises(TaskError, match=r"equal rows keeps a pass from its end.* in until_equal"):
        check(hidden(until_equal), 16, equal=True)
