"""Rows at values that random examples hardly ever take (Rules 8 and 21).

What mixes rows there and there alone, NaN doesn't tell: it dies in integers and comparisons. Each
visit is a batch, and the same with one row changed; no other row may move by a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from dtjob_trainer.mechanism.records.batches import padding_example, synthetic_examples, to_tensors
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.blame import Change, check_unmoved
from dtjob_trainer.preflight.rows.passes import Batch, Passes
from dtjob_trainer.task import ArraySpec

_FIRST, _MIDDLE, _LAST = 0, ROWS // 2, ROWS - 1


@dataclass(frozen=True)
class _Visit:
    """A batch, and what one of its rows is changed to."""

    to: Batch
    words: str


def check(passes: Passes, spec: Mapping[str, ArraySpec]) -> None:
    """Refuse where one row's values move another row at one of the visits.

    Coins behind branches get another seed for each batch.

    Raises
    ------
    TaskError
    """
    generator = np.random.default_rng(5)
    usual, other = (
        to_tensors(synthetic_examples(spec, ROWS, generator), passes.device) for _ in range(2)
    )
    at_usual = _of_usual(spec, usual, other, passes.device)
    _visit(passes, "another batch", usual, at_usual, (_FIRST, _MIDDLE, _LAST))
    of_special = _of_special(spec, usual, other, passes.device)
    for seed, (words, batch, visits) in enumerate(of_special, 1):
        _visit(passes, words, batch, visits, (_MIDDLE,), seed)


def _visit(
    passes: Passes,
    words: str,
    batch: Batch,
    visits: list[_Visit],
    rows: tuple[int, ...],
    seed: int = 0,
) -> None:
    """A cumulative sum, or a neighbour, shows from one of the rows."""
    base = passes.take(batch, seed=seed, cause=words)
    for visit in visits:
        for row in rows:
            changed = dict(batch)
            for name, tensor in visit.to.items():
                changed[name] = batch[name].clone()
                changed[name][row] = tensor[row]
            if any(not torch.equal(batch[name], changed[name]) for name in visit.to):
                change = Change((row,), changed, f"changing {visit.words}")
                check_unmoved(passes, batch, base, change, seed=seed)


def _of_usual(
    spec: Mapping[str, ArraySpec], usual: Batch, other: Batch, device: torch.device
) -> list[_Visit]:
    """What a row among random ones is changed to."""
    whole = f"{', '.join(spec)} of one example"
    single = [_Visit({name: other[name]}, f"{name} of one example") for name in spec]
    special = [
        _Visit(batch, f"{whole} to {named}")
        for named, batch in _special(spec, usual, device).items()
    ]
    tails = [
        _Visit(batch, f"the end of one example to {named}")
        for named, batch in _tails(spec, usual).items()
    ]
    return [*single, _Visit(other, whole), *special, *tails]


def _of_special(
    spec: Mapping[str, ArraySpec], usual: Batch, other: Batch, device: torch.device
) -> Iterator[tuple[str, Batch, list[_Visit]]]:
    """Batches of which all rows are at special values, in words, and what one is changed to."""
    whole = f"{', '.join(spec)} of one example"
    same = {name: tensor[:1].expand_as(tensor).clone() for name, tensor in usual.items()}
    yield "a batch of equal examples", same, [_Visit(other, f"{whole} where all were equal")]
    for named, batch in _tails(spec, usual).items():
        visit = _Visit(other, f"{whole} where all ended with {named}")
        yield f"a batch of examples that end with {named}", batch, [visit]
    for named, batch in _special(spec, usual, device).items():
        visit = _Visit(other, f"{whole} where all were {named}")
        yield f"a batch of {named}", batch, [visit]
        for name in spec if len(spec) > 1 else ():
            visit = _Visit({name: other[name]}, f"{name} of one example where all were {named}")
            yield f"{name} of {named}", {**usual, name: batch[name]}, [visit]


def _special(spec: Mapping[str, ArraySpec], usual: Batch, device: torch.device) -> dict[str, Batch]:
    padding = to_tensors(padding_example(spec), device)
    zero = [name for name in spec if spec[name].low <= 0 <= spec[name].high]
    batches = {
        "the least value": {name: _filled(usual[name], spec[name].low) for name in spec},
        "the greatest value": {name: _filled(usual[name], spec[name].high) for name in spec},
        "zero": {**usual, **{name: torch.zeros_like(usual[name]) for name in zero}},
        "padding": {name: padding[name].expand_as(usual[name]).clone() for name in spec},
    }
    kept: dict[str, Batch] = {}
    for named, batch in batches.items():
        if not any(_same(batch, other) for other in kept.values()):
            kept[named] = batch
    return kept


def _same(batch: Batch, other: Batch) -> bool:
    return all(torch.equal(batch[name], other[name]) for name in batch)


def _tails(spec: Mapping[str, ArraySpec], usual: Batch) -> dict[str, Batch]:
    """The rows with the second half of their first dimension at an end of the range."""
    lows = {name: _with_tail(usual[name], spec[name].low) for name in spec}
    highs = {name: _with_tail(usual[name], spec[name].high) for name in spec}
    return {"the least value": lows, "the greatest value": highs}


def _filled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The value as it is in the tensor's dtype: a float has no 2⁶³ − 1."""
    whole = not tensor.is_floating_point()
    return torch.full_like(tensor, int(value) if whole else value)


def _with_tail(tensor: torch.Tensor, value: float) -> torch.Tensor:
    if tensor.dim() < 2:
        return tensor
    changed = tensor.clone()
    half = tensor.shape[1] // 2
    changed[:, half:] = _filled(changed[:, half:], value)
    return changed
