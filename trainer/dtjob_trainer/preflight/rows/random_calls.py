"""The operators that take numbers from torch's global generators, run on two streams."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from dtjob_trainer.preflight.rows.axes import Axis
from dtjob_trainer.preflight.rows.operators import Operators
from dtjob_trainer.preflight.rows.whereabouts import Met, Modules

Again = Callable[[], list[torch.Tensor]]
Meet = Callable[[int, list[torch.Tensor], Again], None]

#: The least and the greatest number that torch.rand gives in float32.
OF_RAND = (0.0, 1 - 2.0**-24)

_UNIFORM = frozenset({"rand", "rand_like", "uniform", "uniform_"})
_COINS = frozenset({"bernoulli", "bernoulli_"})
_SALT = 0x9E3779B9


class OwnGenerator(Exception):
    """An operator is given a generator of the task's own; the words say which operator."""


@dataclass(frozen=True)
class Call:
    """One call of a random operator.

    Attributes
    ----------
    name
        The operator's.
    shapes
        Those of the tensors that it fills.
    orders
        Whether it draws places and not values for each: an order, or a choice, of what may be
        rows.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    orders: bool


class RandomCalls(Operators):
    """Meets each call that takes random numbers, in order.

    Parameters
    ----------
    device
        Its generators count beside those of the CPU.
    meet
        Called with the number of the call, the tensors that it filled, to be overwritten, and a
        function that returns what it gives on the other stream. That one overwrites what a call
        fills in place.
    """

    def __init__(self, device: torch.device, meet: Meet | None = None) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._meet = meet
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[device.index or 0])

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if any(isinstance(each, torch.Generator) for each in (*args, *kwargs.values())):
            raise OwnGenerator(name)
        written = _written(func, args, kwargs)
        before = [tensor.clone() for tensor in written]
        states = self._states()
        result = func(*args, **kwargs)
        if all(map(torch.equal, states, self._states())):
            return result
        filled = _filled(result, written)
        orders = name == "randperm" or (name == "multinomial" and args[0].dim() == 1)
        self.calls.append(Call(name, tuple(tuple(each.shape) for each in filled), orders))

        def again() -> list[torch.Tensor]:
            """The same call on the other stream, which follows from the state of the first."""
            after = self._states()
            for tensor, value in zip(written, before, strict=True):
                tensor.copy_(value)
            for generator, state in zip(self._generators, states, strict=True):
                generator.manual_seed(zlib.crc32(state.numpy().tobytes()) ^ _SALT)
            other = func(*args, **kwargs)
            for generator, state in zip(self._generators, after, strict=True):
                generator.set_state(state)
            return [each.clone() for each in _filled(other, written)]

        if self._meet is not None:
            self._meet(len(self.calls) - 1, filled, again)
        return result

    def _states(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in self._generators]


def spliced(
    device: torch.device, row: int, axes: dict[int, list[Axis | None]], *, row_major: bool
) -> RandomCalls:
    """Take one row of what each call gives from the other stream.

    Parameters
    ----------
    axes
        {number of the call: the rows of each tensor that it fills, None of one without rows}.
    row_major
        See `Axis.take`.
    """

    def meet(number: int, filled: list[torch.Tensor], again: Again) -> None:
        if number not in axes:
            return
        mine = [each.clone() for each in filled]
        theirs = again()
        for target, own, other, axis in zip(filled, mine, theirs, axes[number], strict=True):
            if axis is not None:
                axis.take(own, other, row, row_major=row_major)
            target.copy_(own)

    return RandomCalls(device, meet)


def pinned(device: torch.device, pinned_number: int, value: float) -> RandomCalls:
    """Give one call one value."""

    def meet(number: int, filled: list[torch.Tensor], _again: Again) -> None:
        if number == pinned_number:
            for each in filled:
                each.fill_(value)

    return RandomCalls(device, meet)


def all_pinned(device: torch.device, value: float) -> RandomCalls:
    """Give all uniform numbers one value, and let all coins fall as they do for it."""

    def meet(number: int, filled: list[torch.Tensor], _again: Again) -> None:
        name = around.calls[number].name
        if name in _UNIFORM or name in _COINS:
            for each in filled:
                each.fill_(value if name in _UNIFORM else round(value))

    around = RandomCalls(device, meet)
    return around


def sought(device: torch.device, modules: Modules, sought_number: int) -> RandomCalls:
    """Raise `Met` at one call."""

    def meet(number: int, _filled: list[torch.Tensor], _again: Again) -> None:
        if number == sought_number:
            raise Met(modules.innermost)

    return RandomCalls(device, meet)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that a call writes to in place."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            if isinstance(value, torch.Tensor):
                found.append(value)
    return found


def _filled(result: object, written: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a call gives and writes to, each once."""
    given = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
    return list({id(each): each for each in (*written, *given)}.values())
