"""Follows what was taken from some rows alone, to see where it meets what is of others.

As where Python's `sum` goes over the rows of a batch, or a choice for all follows from the first
one: no operator has a dimension there whose size tells how many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from dtjob_trainer.mechanism.watch.structure import storage_of
from dtjob_trainer.preflight.rows.dimensions import Along, argument

# They only put rows side by side.
_SIDE_BY_SIDE = frozenset({"cat", "stack"})
# They write rows into a copy of others.
_INTO_COPIES = frozenset({"select_scatter", "slice_scatter"})
# No row: what is a constant, such as the zeros that rows are written into.
_NONE = -1

_Rows = tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """Where the rows of a storage lie.

    Attributes
    ----------
    rows
        In order; after the last one it begins with the first one again.
    stride
        Bytes from one to the next; 0 where all of the storage is of all these rows.
    """

    rows: _Rows
    stride: int


@dataclass(frozen=True)
class _Part:
    """What a tensor has of the rows of its storage.

    Attributes
    ----------
    rows
        In order, if they are in one dimension.
    dim
        Which; None where there is one row, or they are not one after the other.
    each
        How many entries in a row the dimension has for each.
    places
        At which places of the storage's rows they are.
    """

    tensor: torch.Tensor
    rows: _Rows
    dim: int | None = None
    each: int = 1
    places: _Rows = ()

    @property
    def own(self) -> frozenset[int]:
        """Its rows, without order and constants."""
        return frozenset(self.rows) - {_NONE}


class TakenApart:
    """By storage, of which rows each part of it is.

    Parameters
    ----------
    rows
        How many the batch has: a number that nothing else in the pass has, so that a dimension of
        this size is that of the rows.
    """

    def __init__(self, rows: int) -> None:
        self._all = tuple(range(rows))
        # The reference keeps the address from serving another one.
        self._places: dict[int, tuple[StorageWeakRef, _Place]] = {}

    def meet(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Sequence[torch.Tensor],
        result: Iterable[torch.Tensor],
        along: Along,
    ) -> bool:
        """Whether an operator makes something of several rows that were taken apart.

        Parameters
        ----------
        given
            What it was given of the batch.
        along
            The dimensions along which it mixes entries.
        """
        name = func.overloadpacket.__name__
        of = [part for part in map(self._seen, given) if part.rows]
        if not of:
            return False
        if any(part.rows != self._all and _is_along(part, along) for part in of):
            return True
        arguments = func._schema.arguments
        writes = any(each.alias_info and each.alias_info.is_write for each in arguments)
        met = False
        shown = {storage_of(each) for each in given}
        for each in result:
            if writes:
                met |= self._write(each, of, overwrites=name == "copy_")
                continue
            if storage_of(each) in shown:
                continue  # a view, of the rows that lie where it does
            place, meets = self._made(name, func, args, kwargs, each, of)
            met |= meets
            self._note(each, place)
        return met

    def _made(
        self,
        name: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: torch.Tensor,
        of: list[_Part],
    ) -> tuple[_Place | None, bool]:
        """Where the rows of a new tensor lie, and whether they have met."""
        own = tuple(sorted(frozenset().union(*(part.own for part in of))))
        if len(own) == 1:
            return _Place(own, 0), False
        if name in _SIDE_BY_SIDE:
            dim = argument(func, "dim", args, kwargs) % result.dim()
            if all(part.rows == of[0].rows and part.dim not in (None, dim) for part in of):
                return self._lying(result, of), False
            operands = [each for each in tree_leaves(args[0]) if each.numel()]
            return self._beside(result, operands, of, dim, stacked=name == "stack"), False
        if name == "constant_pad_nd":
            return _padded(result, of[0], args[1]), False
        if name in _INTO_COPIES:
            return self._lying(result, of[:1]), False
        same = all(part.rows == of[0].rows for part in of)
        place = self._lying(result, of) if same else None
        if all(part.rows == self._all for part in of):
            return place, False
        met = place is None or _are_compared(result, of)
        return place or _Place(own, 0), met

    def _lying(self, result: torch.Tensor, of: Iterable[_Part]) -> _Place | None:
        """Where the rows lie, in the dimension that has as many entries as one that was given."""
        for part in of:
            if part.dim is None:
                continue
            size, rank = part.tensor.shape[part.dim], part.tensor.dim()
            dims = [dim for dim, n in enumerate(result.shape) if n == size]
            if dims:
                same = result.dim() == rank and part.dim in dims
                return _lies(result, part.dim if same else dims[0], part.each, part.rows)
        return None

    def _beside(
        self,
        result: torch.Tensor,
        operands: Iterable[torch.Tensor],
        of: list[_Part],
        dim: int,
        *,
        stacked: bool,
    ) -> _Place:
        """Where rows lie that were put one after the other."""
        known = {id(part.tensor): part for part in of}
        rows: list[int] = []
        sizes = set()
        for operand in operands:
            part = known.get(id(operand))
            size = 1 if stacked else operand.shape[dim]
            if part is None:
                rows += [_NONE] * size
                sizes.add(1)
            elif len(part.own) == 1 and part.dim is None:
                rows += part.rows
                sizes.add(size)
            elif part.dim == dim and not stacked:
                rows += part.rows
                sizes.add(part.each)
            else:
                sizes.add(0)
        place = _lies(result, dim, max(sizes), tuple(rows)) if len(sizes) == 1 else None
        own: frozenset[int] = frozenset().union(*(part.own for part in of))
        return place or _Place(tuple(sorted(own)), 0)

    def _write(self, to: torch.Tensor, of: list[_Part], *, overwrites: bool) -> bool:
        """Note what is written into a tensor that was there before; whether it meets other rows."""
        sources = [part for part in of if part.tensor is not to]
        if not sources:
            return False
        source = sources[0]
        if any(part.rows != source.rows for part in sources):
            return True
        if self._place(to) is None:
            self._note(to, _empty(to, source))
        at, place = self._part(to), self._place(to)
        if place is None:
            return False
        if not place.stride or not at.places:
            whole = overwrites and to.numel() * to.element_size() == _bytes(to)
            self._note(to, _Place(source.rows, 0) if whole else place)
            return not whole and (at.own | source.own) != at.own
        coming = source.rows * len(at.places) if len(source.rows) == 1 else source.rows
        if len(coming) != len(at.places):
            return True
        rows = list(place.rows)
        met = False
        for where, row in zip(at.places, coming, strict=True):
            met |= not overwrites and rows[where] not in (_NONE, row)
            rows[where] = row
        self._note(to, _Place(tuple(rows), place.stride))
        return met

    def _seen(self, tensor: torch.Tensor) -> _Part:
        """What a tensor of the batch has of its rows, also where nobody saw it made."""
        if self._place(tensor) is None and storage_of(tensor) is not None:
            dims = [dim for dim, n in enumerate(tensor.shape) if n == len(self._all)]
            place = _lies(tensor, dims[0], 1, self._all) if dims else None
            if place and tensor.storage_offset() * tensor.element_size() < place.stride:
                self._note(tensor, place)
        return self._part(tensor)

    def _part(self, tensor: torch.Tensor) -> _Part:
        place = self._place(tensor)
        if place is None or not tensor.numel():
            return _Part(tensor, ())
        if not place.stride:
            return _Part(tensor, place.rows)
        size, count = tensor.element_size(), len(place.rows)
        first, rest = divmod(int(tensor.storage_offset()) * size, place.stride)
        across: list[tuple[int, int, int]] = []
        extent = rest
        for dim in sorted(range(tensor.dim()), key=tensor.stride):
            n, by = tensor.shape[dim], tensor.stride(dim) * size
            if n == 1 or by % (place.stride * count) == 0:
                continue
            if not across and extent + (n - 1) * by < place.stride:
                extent += (n - 1) * by
            else:
                across.append((dim, n, by))
        if not across:
            at = first % count
            return _Part(tensor, (place.rows[at],), places=(at,))
        dim, n, by = across[0]
        each = max(1, place.stride // by)
        fits = (by % place.stride == 0) if each == 1 else place.stride % by == 0 and rest < by
        if len(across) > 1 or not fits or n % each:
            end = rest + sum((n - 1) * by for _, n, by in across)
            span = range(first, min(first + count, first + 1 + end // place.stride))
            return _Part(tensor, tuple(sorted({place.rows[at % count] for at in span})))
        step, turns = max(1, by // place.stride), n // each
        if turns % count == 0 and step == 1 and first % count == 0:
            turns = count
        places = tuple((first + turn * step) % count for turn in range(turns))
        return _Part(tensor, tuple(place.rows[at] for at in places), dim, each, places)

    def _place(self, tensor: torch.Tensor) -> _Place | None:
        address = storage_of(tensor)
        return None if address is None or address not in self._places else self._places[address][1]

    def _note(self, tensor: torch.Tensor, place: _Place | None) -> None:
        address = storage_of(tensor)
        if address is not None and place is not None:
            self._places[address] = (StorageWeakRef(_storage(tensor)), place)


def _lies(tensor: torch.Tensor, dim: int, each: int, rows: _Rows) -> _Place | None:
    """Where rows in a dimension lie in its storage; None where others are between them."""
    stride = tensor.stride(dim) * each * tensor.element_size()
    if not stride or not each or not tensor.numel():
        return None
    within = 0
    for other, n in enumerate(tensor.shape):
        by = tensor.stride(other) * tensor.element_size()
        if other == dim or n == 1:
            continue
        if by < tensor.stride(dim) * tensor.element_size():
            within += (n - 1) * by
        elif by % (stride * len(rows)):
            return None
    return _Place(rows, stride) if within < stride else None


def _empty(to: torch.Tensor, source: _Part) -> _Place | None:
    """The places of a tensor without rows that some are written into."""
    if source.dim is None or source.dim >= to.dim():
        extent = sum((n - 1) * by for n, by in zip(to.shape, to.stride(), strict=True)) + 1
        stride = extent * to.element_size()
    else:
        stride = to.stride(source.dim) * source.each * to.element_size()
    return _Place((_NONE,) * max(1, _bytes(to) // stride), stride) if stride else None


def _padded(result: torch.Tensor, part: _Part, pad: Sequence[int]) -> _Place | None:
    """Where rows lie beside which there are constants, or which are cut off."""
    if part.dim is None:
        return _Place(part.rows, 0) if len(part.own) == 1 else None
    place = 2 * (result.dim() - 1 - part.dim)
    before, after = pad[place : place + 2] if place < len(pad) else (0, 0)
    if before % part.each or after % part.each:
        return None
    before, after = before // part.each, after // part.each
    kept = part.rows[max(0, -before) : len(part.rows) - max(0, -after)]
    rows = (_NONE,) * max(0, before) + kept + (_NONE,) * max(0, after)
    return _lies(result, part.dim, part.each, rows)


def _is_along(part: _Part, along: Along) -> bool:
    """Whether an operator mixes the entries of a dimension of several rows."""
    return len(part.own) > 1 and any(
        tensor is part.tensor and part.dim in dims for tensor, dims in along
    )


def _are_compared(result: torch.Tensor, of: list[_Part]) -> bool:
    """Whether what an operator gives has rows beside rows."""
    apart = [(part.tensor, part.dim) for part in of if part.dim is not None]
    if len({tensor.dim() - dim for tensor, dim in apart}) < 2:
        return False
    sizes = {tensor.shape[dim] for tensor, dim in apart}
    return sum(n in sizes for n in result.shape) > 1


def _bytes(tensor: torch.Tensor) -> int:
    return _storage(tensor).nbytes()


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    """Unseen by what looks at the task's own functions."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()
