"""What is computed from all rows of a batch at once (Rules 8 and 21).

A number that is of the whole batch, such as its greatest value, may decide about the rows where it
is rare enough for no probe to meet it. So no operator that is given rows may give something that
has none, while model and losses compute. Rows are told by two batches of different size.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.watch import questions
from dtjob_trainer.mechanism.watch.structure import Look, looked_at
from dtjob_trainer.preflight.rows.axes import FEWER_ROWS
from dtjob_trainer.preflight.rows.operators import Operators
from dtjob_trainer.preflight.rows.passes import Batch, Passes
from dtjob_trainer.preflight.rows.whereabouts import Met, Modules, met_at
from dtjob_trainer.task import TaskError

_REMEDY = (
    "compute each row from its own example alone: reduce over the other dimensions; where "
    "torch.autograd.grad wants a number, give it grad_outputs=torch.ones_like(outputs) instead"
)
# How many of its outputs count: the other one, a sum of weights for a mean, is 0 where the losses
# are of each row.
_TELLING = {"nll_loss_forward": 1, "nll_loss2d_forward": 1}


@dataclass(frozen=True)
class _Call:
    """The shapes of the tensors that an operator was given of the batch, and of what it gave.

    Attributes
    ----------
    gave
        Also whether it is of floats. A seed, or how many rows there are, is an integer.
    excused
        It gives a view, or no values, or torch asks only to raise.
    """

    name: str
    given: list[torch.Size]
    gave: list[tuple[torch.Size, bool]]
    excused: bool

    def reduces(self, of_fewer: _Call) -> bool:
        """Whether rows go in, and floats, or all that comes out, have none."""
        if self.excused or self.given == of_fewer.given or len(self.gave) != len(of_fewer.gave):
            return False
        has_rows = [
            (mine != other, floats)
            for (mine, floats), (other, _) in zip(self.gave, of_fewer.gave, strict=True)
            if 0 not in mine
        ]
        return any(floats and not rows for rows, floats in has_rows) or (
            bool(has_rows) and not any(rows for rows, _ in has_rows)
        )


class _Calls(Operators):
    """Notes each call, or raises `Met` at that of a number.

    What is no part of the batch has rows for itself, such as places that a model makes for each.
    """

    def __init__(
        self,
        passes: Passes,
        batch: Batch,
        at: int | None = None,
        modules: Modules | None = None,
    ) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._at, self._modules = at, modules
        self._looking = looked_at(passes.model, batch)
        self._look: Look | None = None

    def __enter__(self) -> _Calls:
        self._look = self._looking.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._looking.__exit__(*error)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        look = self._look
        assert look is not None
        given = [each.shape for each in _tensors((args, kwargs)) if look.is_marked(each)]
        result = func(*args, **kwargs)
        if self._modules is not None and len(self.calls) == self._at:
            raise Met(self._modules.innermost)
        name = func.overloadpacket.__name__
        self.calls.append(
            _Call(
                name=name,
                given=given,
                gave=[
                    (each.shape, each.is_floating_point())
                    for each in _tensors(result)[: _TELLING.get(name)]
                ],
                excused=_is_view(func)
                or questions.kind_of(func).of_shapes
                or questions.may_be_asked(look.function, look.arguments, inspect.currentframe()),
            )
        )
        return result


def check(passes: Passes, batch: Batch) -> None:
    """Refuse an operator of model or losses that makes of rows what has none.

    Where a smaller batch is computed by other operators, nothing is told: rows that take turns
    are each of their own.

    Parameters
    ----------
    batch
        Of `ROWS` rows.

    Raises
    ------
    TaskError
        Names module, line and operator.
    """
    part = {name: tensor[:FEWER_ROWS].clone() for name, tensor in batch.items()}
    many, fewer = _Calls(passes, batch), _Calls(passes, part)
    passes.losses(batch, around=many)
    passes.losses(part, around=fewer)
    for number, (one, other) in enumerate(zip(many.calls, fewer.calls, strict=False)):
        if one.name != other.name:
            return
        if one.reduces(other):
            sought = functools.partial(_Calls, passes, batch, number)
            place = met_at(passes, batch, sought)
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"{place or 'the model or losses()'} mixes the examples of a batch: {one.name} "
                f"makes one value of those of all rows; {_REMEDY}",
            )


def _tensors(value: object) -> list[torch.Tensor]:
    return [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]


def _is_view(func: Any) -> bool:
    """Whether what it gives is a part of what it is given: one row, say."""
    schema = getattr(func, "_schema", None)
    return schema is not None and any(
        each.alias_info is not None and not each.alias_info.is_write for each in schema.returns
    )
