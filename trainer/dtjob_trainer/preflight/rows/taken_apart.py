"""Follows what was taken from one row alone, to see where it meets what was taken from another.

As where Python's `sum` goes over the rows of a batch: no operator has a dimension of rows there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from dtjob_trainer.mechanism.watch.structure import storage_of

#: They only put rows side by side.
_SIDE_BY_SIDE = frozenset({"cat", "stack"})


class TakenApart:
    """By storage, how far apart the rows of what has rows are, or which rows something is of.

    Parameters
    ----------
    rows
        How many the batch has. What has as many entries in its first dimension has its rows there.
    """

    def __init__(self, rows: int) -> None:
        self._count = rows
        self._strides: dict[int | None, int] = {}
        self._rows: dict[int | None, frozenset[int]] = {}

    def meet(
        self,
        name: str,
        given: Iterable[torch.Tensor],
        result: Iterable[torch.Tensor],
        *,
        view: bool,
    ) -> bool:
        """Whether an operator makes something without rows of several that were taken apart.

        Parameters
        ----------
        given
            What it was given of the batch.
        view
            It gives views, which are of the rows that their places in the storage have.
        """
        of: frozenset[int] = frozenset()
        for each in given:
            if self._has_rows(each):
                self._strides.setdefault(storage_of(each), each.stride(0))
            of |= self._of(each)
        if view:
            return False
        met = False
        for each in result:
            self._forget(each)
            if self._has_rows(each):
                self._strides[storage_of(each)] = each.stride(0)
            elif of and not (each.dim() and len(each) == self._count):
                self._rows[storage_of(each)] = of
                met |= len(of) > 1 and name not in _SIDE_BY_SIDE
        return met

    def _has_rows(self, tensor: torch.Tensor) -> bool:
        """Whether it has rows one after the other in its storage, each with something in it."""
        if not tensor.dim() or len(tensor) != self._count or storage_of(tensor) is None:
            return False
        return tensor.is_contiguous() and tensor.numel() > 0

    def _of(self, tensor: torch.Tensor) -> frozenset[int]:
        """The rows that something is of; none for what has rows, or is not followed."""
        storage = storage_of(tensor)
        if (stride := self._strides.get(storage)) is None:
            return self._rows.get(storage, frozenset())
        extent = sum((n - 1) * by for n, by in zip(tensor.shape, tensor.stride(), strict=True))
        first = int(tensor.storage_offset()) // stride
        last = (int(tensor.storage_offset()) + extent) // stride
        return frozenset({first}) if first == last else frozenset()

    def _forget(self, tensor: torch.Tensor) -> None:
        """A new tensor may lie where another one was."""
        self._strides.pop(storage_of(tensor), None)
        self._rows.pop(storage_of(tensor), None)
