"""Refuse what moves other rows, and say where they moved first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.watch.fingerprints import fingerprints
from dtjob_trainer.preflight.rows.operators import Operators
from dtjob_trainer.preflight.rows.passes import (
    LOSSES,
    Around,
    Batch,
    Endless,
    Pass,
    Passes,
    others,
    rows_of,
)
from dtjob_trainer.preflight.rows.whereabouts import Met, Modules, met_at
from dtjob_trainer.task import TaskError
from dtjob_trainer.usercode.passing import may_pass

_REMEDY = (
    "compute each row from its own example alone: no statistics, attention, sorting or cumulative "
    "sums over the first dimension; pad to the length in example_spec, and mask; torch.where for "
    "a branch"
)
_SAMPLER_REMEDY = (
    "an operator that takes more or fewer of them as its values ask (gamma, beta, Dirichlet, "
    "Poisson and binomial numbers) moves those of the rows that follow; transform uniform or "
    "normal numbers of shape [rows, ...]"
)


@dataclass(frozen=True)
class Change:
    """What is done to rows of a batch, mostly to one.

    Attributes
    ----------
    rows
        Which.
    batch
        The batch as it is then.
    words
        What was done, e.g. `"changing x of one example"`.
    around
        Makes what is entered around its pass.
    usual
        Makes what is entered around the pass that it is compared with.
    """

    rows: tuple[int, ...]
    batch: Batch
    words: str
    around: Callable[[], Around] = contextlib.nullcontext
    usual: Callable[[], Around] = contextlib.nullcontext


def check_unmoved(
    passes: Passes,
    batch: Batch,
    base: Pass,
    change: Change,
    *,
    seed: int = 0,
    may_raise: bool = False,
) -> None:
    """Refuse a change that moves the loss or gradient of another row by a bit.

    Parameters
    ----------
    base
        A pass over `batch` under `seed`, within `change.usual()`.
    may_raise
        Whether an operator may raise because of the change: nothing is known then.

    Raises
    ------
    TaskError
        Names the first module and line where another row moved, if it is in a tensor that has the
        batch first.
    """
    try:
        with change.around():
            changed = passes.take(change.batch, seed=seed, cause=change.words)
    except Endless:
        raise
    except Exception as error:
        if may_raise and not may_pass(error):
            return
        raise
    rest = others(rows_of(batch), *change.rows)
    moved = changed.moved(base, rest)
    if not moved:
        return
    witness = _Witness(rest, rows_of(batch))
    with change.usual():
        passes.take(batch, seed=seed, around=witness)
    with change.around():
        place = met_at(passes, change.batch, witness.compare, seed=seed)
    what = "the loss" if LOSSES in moved else f"the gradient of {moved[0]}"
    remedy = _SAMPLER_REMEDY if witness.is_random else _REMEDY
    raise TaskError(
        Reason.MODEL_REFUSED,
        f"{place or 'the model or losses()'} mixes the examples of a batch: {change.words} moved "
        f"{what} of another; {remedy}",
    )


def is_harmless(passes: Passes, base: Pass, change: Change) -> bool:
    """Whether a change moves no other row by a bit; False, too, where an operator raises by it."""
    try:
        with change.around():
            changed = passes.take(change.batch)
    except Exception as error:
        if may_pass(error):
            raise
        return False
    return not changed.moved(base, others(rows_of(change.batch), *change.rows))


class _Witness(Operators):
    """Notes what operators give for the other rows, and in a second pass where it is another.

    Of tensors that have the batch first.
    """

    def __init__(self, rest: list[int], rows: int) -> None:
        super().__init__()
        self.is_random = False
        self._others, self._rows = rest, rows
        self._noted: list[list[torch.Tensor]] = []
        self._next = 0
        self._modules: Modules | None = None

    def compare(self, modules: Modules) -> _Witness:
        """Raise `Met` in the next pass, at the first operator that gives something else."""
        self._modules = modules
        return self

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        result = func(*args, **kwargs)
        prints = [
            fingerprints(each)[self._others]
            for each in tree_leaves(result)
            if isinstance(each, torch.Tensor) and each.dim() and len(each) == self._rows
        ]
        if self._modules is None:
            self._noted.append(prints)
            return result
        noted = self._noted[self._next] if self._next < len(self._noted) else prints
        self._next += 1
        if len(noted) != len(prints) or not all(map(torch.equal, noted, prints)):
            self.is_random = torch.Tag.nondeterministic_seeded in func.tags
            raise Met(self._modules.innermost)
        return result
