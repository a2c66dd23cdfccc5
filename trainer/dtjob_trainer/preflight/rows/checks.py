"""All that is tried of the rows of a batch, in order."""

from __future__ import annotations

import functools

import numpy as np
import torch

from dtjob_trainer.mechanism.records.batches import synthetic_examples, to_tensors
from dtjob_trainer.preflight.rows import (
    caught,
    isolation,
    poison,
    random_calls,
    reductions,
    two_streams,
    visits,
)
from dtjob_trainer.preflight.rows.axes import ROWS, rows_apart_from
from dtjob_trainer.preflight.rows.passes import Batch, passes_of
from dtjob_trainer.task import Task


def check_isolated(
    task: Task, model: torch.nn.Module, device: torch.device, *, whole: bool
) -> None:
    """Refuse where the content of one row reaches another: at every start.

    Parameters
    ----------
    whole
        Whether errors that are caught are looked for too, before a row of NaN raises some.

    Raises
    ------
    TaskError
        Names module, line and remedy.
    """
    batch, apart = (
        _examples(task, rows, np.random.default_rng(4), device)
        for rows in (ROWS, rows_apart_from(_sizes(task, model)))
    )
    with passes_of(task, model, device) as passes:
        reductions.check(passes, apart)
        if whole:
            caught.check(passes, batch)
        passes.settle(batch)
        poison.check(passes, batch, poison.embeddings_rows(passes, batch), poison.EDGES)


def check_whole(task: Task, model: torch.nn.Module, device: torch.device, rows: int) -> None:
    """Refuse what takes longest to find: random numbers that rows share, and more.

    Rows that meet at special values, behind coins that seldom fall, or among P.

    It tells of an image and a task what it told of them before.

    Parameters
    ----------
    rows
        P of the run.

    Raises
    ------
    TaskError
        Names module, line and remedy.
    """
    generator = np.random.default_rng(6)
    batch, at_size, other = (_examples(task, n, generator, device) for n in (ROWS, rows, rows))
    with passes_of(task, model, device) as passes:
        passes.settle(batch)
        two_streams.check(passes, batch)
        dims = poison.embeddings_rows(passes, batch)
        poison.check(passes, batch, dims, poison.BETWEEN)
        for value in poison.LARGE:
            poison.check(passes, batch, dims, poison.EDGES, value)
        for number in random_calls.OF_RAND:
            with passes.within(functools.partial(random_calls.all_pinned, device, number)):
                poison.check(passes, batch, dims, poison.EDGES)
        poison.check_other_choices(passes, batch, _examples(task, ROWS, generator, device))
        visits.check(passes, task.example_spec)
        passes.settle(at_size)
        isolation.check(passes, at_size, other, dims)
        isolation.check_equal(passes, at_size, other)


def _sizes(task: Task, model: torch.nn.Module) -> set[int]:
    """The sizes that an example and the model's own tensors have."""
    shapes = [spec.shape for spec in task.example_spec.values()]
    own = (*model.parameters(), *model.buffers())
    return {size for shape in (*shapes, *(each.shape for each in own)) for size in shape}


def _examples(
    task: Task, count: int, generator: np.random.Generator, device: torch.device
) -> Batch:
    return to_tensors(synthetic_examples(task.example_spec, count, generator), device)
