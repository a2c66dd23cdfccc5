"""Whether a step's rows are apart on the records themselves (Rules 8 and 21).

The dry run tries synthetic rows; this tries one micro-batch of a draw that is looked at: one row
becomes padding, and the gradients of all others must stay what they were, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from dtjob_trainer.mechanism.per_example import PerExampleGradients
from dtjob_trainer.mechanism.prf import words
from dtjob_trainer.mechanism.watch.fingerprints import fingerprints, same_rows


class RowsMet(RuntimeError):
    """The content of one row has changed the gradient of another; says no value."""

    def __init__(self) -> None:
        super().__init__(
            "the model or losses() mixes the examples of a batch: on records of the data set, "
            "though not on synthetic ones, another content of one moved the gradient of another; "
            "compute each row from its own example alone, also where its values are rare"
        )


def chosen_micro_batch(key: bytes, draw: int, micro_batches: int) -> int:
    """Return a secret micro-batch of a draw, the same on every rank.

    Parameters
    ----------
    key
        By which the draw itself was chosen.
    """
    return int(words(key, draw, 1, 1)[0]) % micro_batches


def chosen_row(key: bytes, draw: int, mask: torch.Tensor) -> int:
    """Return a secret row of `mask[P]` that holds a drawn record, if one does."""
    rows = mask.numel()
    first = int(words(key, draw, 2, 1)[0]) % rows
    return (first + int(mask.roll(-first).int().argmax())) % rows


def check(
    gradients: PerExampleGradients,
    batch: Mapping[str, torch.Tensor],
    padding: Mapping[str, torch.Tensor],
    row: int,
    begin: Callable[[], None],
) -> None:
    """Refuse where a row's being padding moves the gradient of another row by a bit.

    Takes two passes, and no more memory than a step. Where a third one shows that the same batch
    doesn't give the same bits twice, they tell nothing.

    Parameters
    ----------
    batch, padding
        {field: Tensor[P, ...]} and {field: Tensor[1, ...]}.
    row
        Which.
    begin
        Sets the generators as they are at the beginning of this micro-batch.

    Raises
    ------
    RowsMet
    """
    rows = len(next(iter(batch.values())))
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    for name, tensor in changed.items():
        tensor[row] = padding[name][0]
    others = [each for each in range(rows) if each != row]

    def same(before: list[torch.Tensor | None], after: list[torch.Tensor | None]) -> bool:
        pairs = zip(before, after, strict=True)
        return all(same_rows(one, other, others) for one, other in pairs)

    def taken(fields: Mapping[str, torch.Tensor]) -> list[torch.Tensor | None]:
        begin()
        found = gradients(fields, rows)
        return [None if each is None else fingerprints(each) for each in found]

    before = taken(batch)
    if not same(before, taken(changed)) and same(before, taken(batch)):
        raise RowsMet
