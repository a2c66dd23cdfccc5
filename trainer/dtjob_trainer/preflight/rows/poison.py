"""NaN in one row, which no other row may meet, even multiplied by zero (Rules 8 and 21).

It is in the row's fields of floats and in what embeddings give for it, and in another pass in the
gradients that come back to the row. A factor that is zero on usual rows hides nothing from NaN.
It dies in integers, in comparisons, and in what a `torch.where` does not select: see `visits`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dtjob_trainer.preflight.rows.axes import FEWER_ROWS, ROWS, axis_of
from dtjob_trainer.preflight.rows.blame import Change, check_unmoved
from dtjob_trainer.preflight.rows.passes import Batch, Pass, Passes, rows_of
from dtjob_trainer.task import TaskError
from dtjob_trainer.usercode.passing import may_pass

_EMBEDDINGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only", "embedding"})


class Embeddings(TorchDispatchMode):
    """Notes the shapes of what embeddings give."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **kwargs or {})
        if func.overloadpacket.__name__ in _EMBEDDINGS:
            looked_up = result[0] if isinstance(result, tuple) else result
            self.meet(len(self.shapes), looked_up)
            self.shapes.append(tuple(looked_up.shape))
        return result

    def meet(self, number: int, looked_up: torch.Tensor) -> None:
        """Do nothing with what the embedding of this number has looked up."""


class PoisonedEmbeddings(Embeddings):
    """Writes NaN into a row of what embeddings give; NaN becomes 0 where it becomes an integer.

    Parameters
    ----------
    row
        Which.
    dims
        {number of the call: the dimension of its rows}.
    """

    def __init__(self, row: int, dims: dict[int, int]) -> None:
        super().__init__()
        self._row, self._dims = row, dims

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and _is_whole(kwargs.get("dtype")):
            args = (args[0].nan_to_num() if args[0].is_floating_point() else args[0], *args[1:])
        return super().__torch_dispatch__(func, types, args, kwargs)

    def meet(self, number: int, looked_up: torch.Tensor) -> None:
        if number in self._dims:
            looked_up.select(self._dims[number], self._row).fill_(torch.nan)


def embeddings_rows(passes: Passes, batch: Batch) -> dict[int, int]:
    """Return {number of a call: the dimension of its rows} of embeddings that look rows up.

    Parameters
    ----------
    batch
        Of `ROWS` rows.
    """
    many, few = Embeddings(), Embeddings()
    passes.take(batch, around=many)
    passes.take({name: tensor[:FEWER_ROWS] for name, tensor in batch.items()}, around=few)
    found = {}
    for number, shapes in enumerate(zip(many.shapes, few.shapes, strict=False)):
        axis = axis_of(*shapes)
        if axis is not None and axis.each == 1:
            found[number] = axis.dim
    return found


def check(passes: Passes, batch: Batch, dims: dict[int, int]) -> None:
    """Refuse a model or losses in which a row of NaN, or of such gradients, reaches another.

    Parameters
    ----------
    batch
        Of `ROWS` rows.
    dims
        Of `embeddings_rows`.

    Raises
    ------
    TaskError
    """
    base = passes.take(batch)
    for row in range(ROWS):
        check_values(passes, batch, base, row, dims)
        back = Change(
            row,
            batch,
            "NaN in the gradient of one example",
            lambda row=row: _poisoned_gradients(passes, row),  # type: ignore[misc]
        )
        check_unmoved(passes, batch, base, back)


def check_values(
    passes: Passes, batch: Batch, base: Pass, row: int, dims: dict[int, int]
) -> None:
    """Refuse where NaN in the values of one row reaches another.

    Nothing is known where an operator raises because of NaN.

    Parameters
    ----------
    batch
        Of any number of rows.
    base
        A pass over it.
    dims
        Of `embeddings_rows`.
    """
    fields = [name for name, tensor in batch.items() if tensor.is_floating_point()]
    if not fields and not dims:
        return
    poisoned = dict(batch)
    for name in fields:
        poisoned[name] = batch[name].clone()
        poisoned[name][row] = torch.nan
    change = Change(row, poisoned, "NaN in one example", lambda: _poisoned_values(row, dims))
    try:
        check_unmoved(passes, batch, base, change)
    except TaskError:
        raise
    except Exception as error:
        if may_pass(error):
            raise


@contextlib.contextmanager
def _poisoned_values(row: int, dims: dict[int, int]) -> Iterator[None]:
    """Distributions don't ask whether their parameters are numbers."""
    asked = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with PoisonedEmbeddings(row, dims):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(asked)


@contextlib.contextmanager
def _poisoned_gradients(passes: Passes, row: int) -> Iterator[None]:
    """Put NaN into the gradient of a row of the losses and of all outputs of modules."""

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        poisoned = gradient.clone()
        poisoned[row] = torch.nan
        return poisoned

    def hook(output: object) -> None:
        for each in tree_leaves(output):
            if isinstance(each, torch.Tensor) and each.requires_grad and each.dim():
                if len(each) == ROWS:
                    each.register_hook(poison)

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


def _is_whole(dtype: torch.dtype | None) -> bool:
    return (
        dtype is not None
        and dtype is not torch.bool
        and not (dtype.is_floating_point or dtype.is_complex)
    )
