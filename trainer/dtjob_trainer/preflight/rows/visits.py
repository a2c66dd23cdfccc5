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

#: The rows that are changed: cumulative sums and neighbours reach others from one of them.
PLACES = (0, ROWS // 2, ROWS - 1)


@dataclass(frozen=True)
class _Visit:
    """A batch, and what one of its rows is changed to."""

    batch: Batch
    other: Batch
    words: str


def check(passes: Passes, spec: Mapping[str, ArraySpec]) -> None:
    """Refuse where one row's values move another row at one of the visits.

    Coins behind branches get another seed in each.

    Raises
    ------
    TaskError
    """
    for seed, visit in enumerate(_visits(spec, passes.device)):
        base = passes.take(visit.batch, seed=seed)
        for row in PLACES:
            changed = {name: tensor.clone() for name, tensor in visit.batch.items()}
            for name, tensor in visit.other.items():
                changed[name][row] = tensor[row]
            if all(map(torch.equal, visit.batch.values(), changed.values())):
                continue
            change = Change(row, changed, f"changing {visit.words}")
            check_unmoved(passes, visit.batch, base, change, seed=seed)


def _visits(spec: Mapping[str, ArraySpec], device: torch.device) -> Iterator[_Visit]:
    generator = np.random.default_rng(5)
    usual = to_tensors(synthetic_examples(spec, ROWS, generator), device)
    other = to_tensors(synthetic_examples(spec, ROWS, generator), device)
    whole = f"{', '.join(spec)} of one example"
    for name in spec:
        yield _Visit(usual, {name: other[name]}, f"{name} of one example")
    yield _Visit(usual, other, whole)
    padding = to_tensors(padding_example(spec), device)
    same = {name: tensor[:1].expand_as(tensor).clone() for name, tensor in usual.items()}
    special = {
        "the least values": {name: _filled(usual[name], spec[name].low) for name in spec},
        "the greatest values": {name: _filled(usual[name], spec[name].high) for name in spec},
        "zeros": {
            name: _filled(usual[name], 0) if spec[name].low <= 0 <= spec[name].high else usual[name]
            for name in spec
        },
        "padding": {name: padding[name].expand_as(usual[name]).clone() for name in spec},
    }
    for named, batch in special.items():
        yield _Visit(usual, batch, f"{whole} to {named}")
        yield _Visit(batch, other, f"{whole} where the others hold {named}")
        for name in spec if len(spec) > 1 else ():
            mixed = {**usual, name: batch[name]}
            yield _Visit(mixed, {name: other[name]}, f"{name} where the others hold {named}")
    yield _Visit(same, other, f"{whole} where all were equal")
    for named, value in (("least", "low"), ("greatest", "high")):
        ends = {name: float(getattr(spec[name], value)) for name in spec}
        tails = {name: _with_tail(usual[name], ends[name]) for name in spec}
        yield _Visit(tails, other, f"{whole} where the others end with the {named} value")
        yield _Visit(usual, tails, f"the end of one example to the {named} value")


def _filled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The value as it is in the tensor's dtype: a float has no 2⁶³ − 1."""
    whole = not tensor.is_floating_point()
    return torch.full_like(tensor, int(value) if whole else value)


def _with_tail(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The second half of each row's first dimension at one value."""
    if tensor.dim() < 2:
        return tensor
    changed = tensor.clone()
    half = tensor.shape[1] // 2
    changed[:, half:] = _filled(changed[:, half:], value)
    return changed
