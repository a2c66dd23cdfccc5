"""Rules 8 and 21: one slot's content moves no other slot at the run's own number of rows."""

from __future__ import annotations

import pytest
import torch

from dtjob_trainer.preflight.rows import isolation
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import hidden
from tests.support.mechanism.models import CLASSES, FEATURES, make_task


def check(task: Task, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, other = (
        {
            "x": torch.rand(rows, FEATURES, generator=generator),
            "y": torch.randint(CLASSES, (rows,), generator=generator),
        }
        for _ in range(2)
    )
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
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
