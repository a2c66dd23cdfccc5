"""All that is tried of the rows of a batch, in order."""

from __future__ import annotations

import numpy as np
import torch

from dtjob_trainer.mechanism.records.batches import synthetic_examples, to_tensors
from dtjob_trainer.preflight.rows import isolation, poison, two_streams, visits
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.passes import Batch, passes_of
from dtjob_trainer.task import Task


def check(
    task: Task, model: torch.nn.Module, device: torch.device, rows: int, *, whole: bool
) -> None:
    """Refuse a model or losses in which the rows of a batch meet.

    Parameters
    ----------
    rows
        P of the run.
    whole
        Whether random numbers and special values are tried too: the longer part.

    Raises
    ------
    TaskError
        Names module, line and remedy.
    """
    generator = np.random.default_rng(4)

    def examples(count: int) -> Batch:
        return to_tensors(synthetic_examples(task.example_spec, count, generator), device)

    batch = examples(ROWS)
    with passes_of(task, model, device) as passes:
        passes.settle(batch)
        if whole:
            two_streams.check(passes, batch)
        dims = poison.embeddings_rows(passes, batch)
        poison.check(passes, batch, dims)
        if whole:
            visits.check(passes, task.example_spec)
        at_size = examples(rows)
        passes.settle(at_size)
        isolation.check(passes, at_size, examples(rows), dims)
