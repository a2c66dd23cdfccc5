"""Which dimension of a tensor the rows of a batch are, told by tensors of two batches.

A size alone may be that of something else; what grows with the number of rows is the rows.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch

#: The rows of a batch in which rows are told apart: a prime.
ROWS = 7
#: Those of the other one.
FEWER_ROWS = 5
# Pairs of primes, each the other one and `FEWER_BY`, of which few things are as many.
_SELDOM = (13, 19, 31, 43, 61, 73, 103)
#: What the smaller batch lacks beside one of `rows_apart_from`.
FEWER_BY = 2


def rows_apart_from(sizes: Container[int]) -> int:
    """Return a number of rows, 13 if possible, that is no size of anything; nor are two fewer."""
    free = (n for n in _SELDOM if n not in sizes and n - FEWER_BY not in sizes)
    return next(free, _SELDOM[-1])


@dataclass(frozen=True)
class Axis:
    """The rows in one dimension of a tensor.

    Attributes
    ----------
    dim
        Its size is rows·each.
    each
        Entries of a row in it.
    """

    dim: int
    each: int

    def take(self, to: torch.Tensor, source: torch.Tensor, row: int, *, row_major: bool) -> None:
        """Copy a row of `source` to its place in `to`.

        Parameters
        ----------
        row_major
            Whether the entries of a row lie side by side, or those of an entry.
        """
        sizes = (ROWS, self.each) if row_major else (self.each, ROWS)
        rows = self.dim if row_major else self.dim + 1
        of_row, other = (
            tensor.view((*tensor.shape[: self.dim], *sizes, *tensor.shape[self.dim + 1 :]))
            for tensor in (to, source)
        )
        of_row.select(rows, row).copy_(other.select(rows, row))


def axis_of(shape: Sequence[int], of_fewer: Sequence[int]) -> Axis | None:
    """Return where the rows are, by the shapes that `ROWS` and `FEWER_ROWS` rows give."""
    if len(shape) != len(of_fewer):
        return None
    differing = [dim for dim, size in enumerate(shape) if size != of_fewer[dim]]
    if len(differing) != 1:
        return None
    (dim,) = differing
    each, rest = divmod(shape[dim], ROWS)
    if rest or of_fewer[dim] != each * FEWER_ROWS:
        return None
    return Axis(dim, each)
