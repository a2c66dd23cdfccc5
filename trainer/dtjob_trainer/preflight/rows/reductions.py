"""What is computed from all rows of a batch at once (Rules 8 and 21).

A number that is of the whole batch, such as its greatest value, may decide about the rows where it
is rare enough for no probe to meet it. So no operator that is given rows may give something that
has none, compare rows with rows or run along them, while model and losses compute, and where the
task's own code computes in the backward pass. Rows are told by two batches of different size.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.watch import questions
from dtjob_trainer.mechanism.watch.structure import storage_of
from dtjob_trainer.preflight.rows.axes import FEWER_BY
from dtjob_trainer.preflight.rows.dimensions import PRODUCTS, REORDER, mixed
from dtjob_trainer.preflight.rows.gradient_hooks import Kept, OfAllRows, runs_in_task
from dtjob_trainer.preflight.rows.marked import MarkedOperators
from dtjob_trainer.preflight.rows.operators import gives_view
from dtjob_trainer.preflight.rows.passes import Batch, Passes, rows_of
from dtjob_trainer.preflight.rows.taken_apart import TakenApart
from dtjob_trainer.preflight.rows.whereabouts import Met, Modules, met_at
from dtjob_trainer.task import TaskError

_REMEDY = (
    "compute each row from its own example alone: reduce over the other dimensions (of a loss "
    'reduction="none", then mean(1)), and leave out what is only shown, such as metrics'
)
_OF_ORDER = (
    "compute each row from its own example alone: an order backwards or a shift is one of the "
    "other dimensions, as in x.flip(1)"
)
_OF_NUMBERS = (
    "; where torch.autograd.grad wants a number, give it grad_outputs=torch.ones_like(outputs) "
    "instead"
)
_OF_STATISTICS = (
    "; a loss that is made of statistics of the batch, as by Barlow Twins and VICReg, has no such "
    "form: compare within a record, which may be a pair or a triplet"
)
_OF_CONTRASTS = (
    "compute each row from its own example alone: attention runs over the positions of one "
    "(batch_first=True), and what a contrastive loss compares it with lies in its record, as in "
    "pairs and triplets, and is public or of the same unit of privacy"
)
_OF_GRADIENTS = (
    "give each row's gradient what follows from this row alone, in hooks and in the backward pass "
    "of an autograd.Function: reduce over the other dimensions, as in "
    "torch.nn.functional.normalize(g.flatten(1)).view_as(g)"
)
_OF_ALL = "makes one value of those of all rows"
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
    along
        The sizes of dimensions along which it makes each entry of others.
    excused
        It gives a view, or no values, or torch asks only to raise.
    joins
        It makes something without rows of several rows that were taken apart.
    given_at, gave_at
        In the backward pass, where what it was given and gave lies; None in the forward pass.
    """

    name: str
    given: list[torch.Size]
    gave: list[tuple[torch.Size, bool]]
    along: tuple[int, ...]
    excused: bool
    joins: bool = False
    given_at: tuple[int | None, ...] | None = None
    gave_at: tuple[int | None, ...] = ()

    def meets(self, of_fewer: _Call) -> bool:
        """Whether it makes an entry of a row of those of other rows."""
        return len(self.along) == len(of_fewer.along) and self.along != of_fewer.along

    def compares(self, of_fewer: _Call) -> bool:
        """Whether what it gives has rows in two dimensions: rows beside rows."""
        return bool(self.given) and any(
            len(mine) == len(other) and sum(a != b for a, b in zip(mine, other, strict=True)) > 1
            for (mine, _), (other, _) in zip(self.gave, of_fewer.gave, strict=False)
        )

    def mixes(self, of_fewer: _Call) -> str:
        """What it does with rows, beside a call on fewer; empty where each stays for itself."""
        if self.reduces(of_fewer):
            return _OF_ALL
        if self.meets(of_fewer):
            return "runs along the rows"
        if self.compares(of_fewer):
            return "compares rows with rows"
        return "makes one value of those of several rows" if self.joins else ""

    def remedy(self, of_fewer: _Call) -> str:
        """What to do instead where it mixes rows."""
        if self.given_at is not None:
            return _OF_GRADIENTS
        if self.name in REORDER:
            return _OF_ORDER
        if self.compares(of_fewer) or self.name in PRODUCTS:
            return _OF_CONTRASTS
        if self.along:
            return _REMEDY
        numbers = all(not shape for shape, _ in self.gave)
        return _REMEDY + (_OF_NUMBERS if numbers else _OF_STATISTICS)

    def gives_rows(self, of_fewer: _Call) -> bool:
        """Whether there are rows in what it gives."""
        return [shape for shape, _ in self.gave] != [shape for shape, _ in of_fewer.gave]

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


class _Calls(MarkedOperators):
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
        super().__init__(passes, batch)
        self.calls: list[_Call] = []
        self._at, self._modules = at, modules
        self._passes = passes
        self._apart = TakenApart(rows_of(batch))
        self._kept = Kept()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        came_back = not self._passes.in_losses
        if came_back and not runs_in_task(inspect.currentframe()):
            return func(*args, **kwargs)
        look = self.look
        of_batch = [each for each in _tensors((args, kwargs)) if look.is_marked(each)]
        result = func(*args, **kwargs)
        if self._modules is not None and len(self.calls) == self._at:
            raise Met(self._modules.innermost)
        name = func.overloadpacket.__name__
        kind, gave = questions.kind_of(func), _tensors(result)[: _TELLING.get(name)]
        along = mixed(func, args, kwargs) if of_batch else []
        self.calls.append(
            _Call(
                name=name,
                given=[each.shape for each in of_batch],
                gave=[(each.shape, each.is_floating_point()) for each in gave],
                along=tuple(each.shape[dim] for each, dims in along for dim in dims),
                joins=not kind.of_shapes
                and self._apart.meet(func, args, kwargs, of_batch, gave, along),
                given_at=tuple(map(storage_of, of_batch)) if came_back else None,
                gave_at=self._kept.addresses(_tensors(result)) if came_back else (),
                excused=gives_view(func)
                or kind.of_shapes
                or questions.may_be_asked(look.function, look.arguments, inspect.currentframe()),
            )
        )
        return result


def check(passes: Passes, batch: Batch) -> None:
    """Refuse an operator of model or losses that makes of rows what has none.

    Rows that take turns are each of their own.

    Parameters
    ----------
    batch
        Of a number of rows that nothing else in a pass has, nor this number less `FEWER_BY`.

    Raises
    ------
    TaskError
        Names module, line and operator.
    """
    part = {name: tensor[:-FEWER_BY].clone() for name, tensor in batch.items()}
    many, fewer = _Calls(passes, batch), _Calls(passes, part)
    passes.take(batch, around=many)
    passes.take(part, around=fewer)
    joining = [(number, call) for number, call in enumerate(many.calls) if call.joins]
    of_all = OfAllRows()
    for place, other in (*_pairs(many.calls, fewer.calls), *joining[:1]):
        number, does = _blamed(many.calls, place, other, of_all)
        if does:
            one = many.calls[number]
            sought = functools.partial(_Calls, passes, batch, number)
            where = met_at(passes, batch, sought)
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"{where or 'the model or losses()'} mixes the examples of a batch: {one.name} "
                f"{does}; {one.remedy(other)}",
            )


def _blamed(
    calls: Sequence[_Call], number: int, other: _Call, of_all: OfAllRows
) -> tuple[int, str]:
    """Which call mixes rows, where this one is paired with another, and how; empty for none."""
    one = calls[number]
    if one.given_at is None:
        return number, one.mixes(other)
    if one.reduces(other):
        of_all.note(number, one.gave_at)
        return number, ""
    source = of_all.source(one.given_at)
    if source is None:
        return number, one.mixes(other)
    if one.gives_rows(other):
        return source, _OF_ALL
    of_all.note(source, one.gave_at)
    return number, ""


def _pairs(many: Sequence[_Call], fewer: Sequence[_Call]) -> Iterator[tuple[int, _Call]]:
    """Pair calls with those of a smaller batch, each with its number among the many.

    A loop over the rows has more turns for more rows: what surrounds it is paired all the same.
    """
    names, names_of_fewer = [call.name for call in many], [call.name for call in fewer]
    if names == names_of_fewer:
        yield from enumerate(fewer)
        return
    # What both begin and end with is most of them, and the matcher's time grows by the square.
    before = _alike(names, names_of_fewer)
    rest, rest_of_fewer = names[before:], names_of_fewer[before:]
    after = _alike(rest[::-1], rest_of_fewer[::-1])
    yield from enumerate(fewer[:before])
    matcher = difflib.SequenceMatcher(
        None,
        rest[: len(rest) - after],
        rest_of_fewer[: len(rest_of_fewer) - after],
        autojunk=False,
    )
    for first, second, size in matcher.get_matching_blocks():
        for step in range(size):
            yield before + first + step, fewer[before + second + step]
    for back in range(after, 0, -1):
        yield len(many) - back, fewer[-back]


def _alike(names: list[str], others: list[str]) -> int:
    """How many both begin with."""
    pairs = zip(names, others, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(names), len(others)))


def _tensors(value: object) -> list[torch.Tensor]:
    return [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]
