"""NaN in one row, which no other row may meet, even multiplied by zero (Rules 8 and 21).

It is in the row's fields of floats and in what embeddings give for it, and in the gradients that
come back to the row. A factor that is zero on usual rows hides nothing from NaN. It dies in
integers, in comparisons, and in what a `torch.where` does not select: see `visits`. Numbers larger
than those that a comparison is with do not die there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_trainer.preflight.rows.axes import FEWER_ROWS, ROWS, axis_of
from dtjob_trainer.preflight.rows.blame import Change, check_unmoved, is_harmless
from dtjob_trainer.preflight.rows.operators import Operators
from dtjob_trainer.preflight.rows.passes import Batch, Pass, Passes
from dtjob_trainer.usercode.passing import may_pass

_EMBEDDINGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only", "embedding"})
#: Rows from which a neighbour, a cumulative sum and a statistic are reached.
EDGES = (0, ROWS // 2, ROWS - 1)
#: The others.
BETWEEN = tuple(row for row in range(ROWS) if row not in EDGES)

# They come to other places by any shift and any order backwards.
_SOME = (0, 2, 3)
_NONE = -1
#: Their squares are numbers too.
LARGE = (2.0**60, -(2.0**60))
_NOTHING = contextlib.nullcontext()
_CONVERT = torch.ops.aten._to_copy.default
_WHERE = torch.ops.aten.where.self
_FILLS = (torch.ops.aten.masked_fill.Scalar, torch.ops.aten.masked_fill.Tensor)


class _Embeddings(Operators):
    """Notes the shapes of what embeddings give, or writes a value into a row of it.

    Then NaN, and what is large, becomes 0 where it becomes an integer: it would be a place that no
    table has. And NaN passes a choice that is made otherwise here: it may be made so elsewhere.

    Parameters
    ----------
    row
        Where a value is written; None for nowhere.
    dims
        {number of the call: the dimension of its rows}.
    value
        Which.
    """

    def __init__(
        self,
        row: int | None = None,
        dims: Mapping[int, int] | None = None,
        value: float = torch.nan,
    ) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self._row, self._dims, self._value = row, dims or {}, value

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        if self._row is not None and func is _CONVERT and _is_whole(kwargs.get("dtype")):
            args = (torch.where(args[0].abs() < LARGE[0] / 2, args[0], 0), *args[1:])
        result = func(*args, **kwargs)
        if self._row is not None and math.isnan(self._value):
            result = _with_nan_of_all(result, func, args)
        if func.overloadpacket.__name__ in _EMBEDDINGS:
            looked_up = result[0] if isinstance(result, tuple) else result
            dim = self._dims.get(len(self.shapes))
            if self._row is not None and dim is not None:
                looked_up.select(dim, self._row).fill_(self._value)
            self.shapes.append(tuple(looked_up.shape))
        return result


def _with_nan_of_all(result: Any, func: Any, args: tuple[Any, ...]) -> Any:
    """What a choice gives, and NaN where what it does not choose has one."""
    if func is not _WHERE and func not in _FILLS:
        return result
    choices = args[1:] if func is _WHERE else args[:1]
    with Operators.unseen():
        for each in choices:
            if isinstance(each, torch.Tensor) and each.is_floating_point():
                result = torch.where(each.isnan(), torch.nan, result)
    return result


class _OtherChoices(Operators):
    """Lets each `torch.where` choose what it does not: what is rare becomes what is usual.

    Parameters
    ----------
    alone
        The number of the only one that does; None for all.
    """

    def __init__(self, alone: int | None = None) -> None:
        super().__init__()
        self.choices = 0
        self._alone = alone

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        if func is _WHERE:
            if self._alone in (None, self.choices):
                args = (args[0], args[2], args[1])
            self.choices += 1
        return func(*args, **kwargs)


def check_other_choices(passes: Passes, batch: Batch, other: Batch) -> None:
    """Refuse where a row's content reaches another one behind a choice that is seldom made.

    Of integers too, in which there is no NaN. All choices are made otherwise, and each alone: what
    stands in the branch of another one is not reached where that one is made otherwise too.

    Parameters
    ----------
    batch, other
        Of `ROWS` rows each.

    Raises
    ------
    TaskError
    """
    usual = _OtherChoices(_NONE)
    passes.take(batch, around=usual)
    if not usual.choices:
        return
    _check_choices(passes, batch, other, None, [(row,) for row in range(ROWS)])
    for number in range(usual.choices if usual.choices > 1 else 0):
        _check_choices(passes, batch, other, number, [_SOME])


def _check_choices(
    passes: Passes, batch: Batch, other: Batch, number: int | None, exchanged: list[tuple[int, ...]]
) -> None:
    """Exchange rows while a choice, or all of them, are made otherwise."""
    with passes.within(lambda: _OtherChoices(number)):
        try:
            base = passes.take(batch)
        except Exception as error:
            if may_pass(error):
                raise
            return  # no pass ever computes this
        for rows in exchanged:
            changed = {name: tensor.clone() for name, tensor in batch.items()}
            for name, tensor in other.items():
                changed[name][list(rows)] = tensor[list(rows)]
            words = "where torch.where chooses what it seldom does, another example"
            change = Change(rows, changed, words)
            check_unmoved(passes, batch, base, change, may_raise=True)


def embeddings_rows(passes: Passes, batch: Batch) -> dict[int, int]:
    """Return {number of a call: the dimension of its rows} of embeddings that look rows up.

    Parameters
    ----------
    batch
        Of `ROWS` rows.
    """
    many, fewer = _Embeddings(), _Embeddings()
    passes.take(batch, around=many)
    passes.take({name: tensor[:FEWER_ROWS] for name, tensor in batch.items()}, around=fewer)
    found = {}
    for number, shapes in enumerate(zip(many.shapes, fewer.shapes, strict=False)):
        axis = axis_of(*shapes)
        if axis is not None and axis.each == 1:
            found[number] = axis.dim
    return found


def check(
    passes: Passes,
    batch: Batch,
    dims: dict[int, int],
    rows: Iterable[int],
    value: float = torch.nan,
) -> None:
    """Refuse a model or losses in which a row of a value, or of such gradients, reaches another.

    What mixes rows behind a comparison shows to values that are beyond all others.

    Parameters
    ----------
    batch
        Of `ROWS` rows.
    dims
        Of `embeddings_rows`.
    rows
        Which rows are poisoned, one after the other.
    value
        NaN, or one of `LARGE`: infinity would be NaN after a product.

    Raises
    ------
    TaskError
    """
    base = passes.take(batch)

    def usual() -> contextlib.AbstractContextManager[None]:
        # A gradient's copy may lie otherwise in memory, and what is summed up there has other bits.
        return _poisoned_gradients(passes, None, value)

    copied = passes.take(batch, around=usual())
    for row in rows:
        if _both_are_harmless(passes, batch, copied, row, dims, value):
            continue
        check_values(passes, batch, base, row, dims, value)
        gradients = Change(
            (row,),
            batch,
            f"{_words(value)} in the gradient of one example",
            lambda row=row: _poisoned_gradients(passes, row, value),  # type: ignore[misc]
            usual,
        )
        check_unmoved(passes, batch, copied, gradients, may_raise=True)


def check_values(
    passes: Passes,
    batch: Batch,
    base: Pass,
    row: int,
    dims: dict[int, int],
    value: float = torch.nan,
) -> None:
    """Refuse where a value in all of one row reaches another.

    Nothing is known where an operator raises because of it.

    Parameters
    ----------
    batch
        Of any number of rows.
    base
        A pass over it.
    dims
        Of `embeddings_rows`.
    value
        As in `check`.
    """
    change = values(batch, row, dims, value)
    if change is not None:
        check_unmoved(passes, batch, base, change, may_raise=True)


def values(batch: Batch, row: int, dims: dict[int, int], value: float = torch.nan) -> Change | None:
    """Return the change of a row to a value; None where there is no float in it."""
    fields = [name for name, tensor in batch.items() if tensor.is_floating_point()]
    if not fields and not dims:
        return None
    poisoned = dict(batch)
    for name in fields:
        poisoned[name] = batch[name].clone()
        poisoned[name][row] = value
    words = f"{_words(value)} in one example"
    return Change((row,), poisoned, words, lambda: _poisoned_values(row, dims, value))


def _both_are_harmless(
    passes: Passes, batch: Batch, base: Pass, row: int, dims: dict[int, int], value: float
) -> bool:
    """Whether values and such gradients in one pass move nothing: twice as fast as in two."""
    change = values(batch, row, dims, value)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with _poisoned_gradients(passes, row, value), change.around() if change else _NOTHING:
            yield

    both = Change((row,), change.batch if change else batch, "", around)
    return is_harmless(passes, base, both)


@contextlib.contextmanager
def _poisoned_values(row: int, dims: dict[int, int], value: float) -> Iterator[None]:
    """Distributions don't ask whether their parameters are numbers."""
    asked = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with _Embeddings(row, dims, value):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(asked)


@contextlib.contextmanager
def _poisoned_gradients(passes: Passes, row: int | None, value: float) -> Iterator[None]:
    """Put a value into the gradient of a row of the losses and of all outputs of modules.

    For no row the gradients are copied all the same.
    """

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        with Operators.unseen():
            poisoned = gradient.clone()
            if row is not None:
                poisoned[row] = value
        return poisoned

    def hook(output: object) -> None:
        for each in tree_leaves(output):
            if isinstance(each, torch.Tensor) and each.requires_grad and _has_rows(each):
                each.register_hook(poison)  # type: ignore[no-untyped-call]

    handles = [
        module.register_forward_hook(lambda _m, _i, output: hook(output))
        for module in passes.model.modules()
    ]
    passes.on_losses = hook
    try:
        yield
    finally:
        passes.on_losses = None
        for handle in handles:
            handle.remove()


def _words(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "NaN"


def _has_rows(tensor: torch.Tensor) -> bool:
    return tensor.dim() > 0 and len(tensor) == ROWS


def _is_whole(dtype: torch.dtype | None) -> bool:
    return (
        dtype is not None
        and dtype is not torch.bool
        and not (dtype.is_floating_point or dtype.is_complex)
    )
