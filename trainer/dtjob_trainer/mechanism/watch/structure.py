"""Whether what is computed for a batch is the same whatever it holds (Rules 8 and 21).

A slot's gradient must not follow from what lies in other slots. Code that branches on a value of
the batch, or makes a shape of one, can let it: a batch cut to its longest text rounds otherwise
where another row is longer. So while one looks, the batch and all that derives from it are marked,
and nothing may ask for the values of what is marked. Nor may anything that is marked outlive the
pass: evaluation, or a later batch, would find it there without noise.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dtjob_trainer.mechanism.prf import words
from dtjob_trainer.mechanism.watch import questions

#: One draw in so many is looked at.
LOOKED_AT = 64


class ValueAsked(RuntimeError):
    """Code of the task asked for the values of a batch; says where and what, and no value.

    Attributes
    ----------
    where
        The module in whose forward, or the losses.
    question
        What was asked, and the remedy.
    """

    def __init__(self, where: str, question: questions.Question) -> None:
        self.where = where
        self.question = question
        super().__init__(self.sentence())

    def sentence(self, place: str = "") -> str:
        """What is refused, with its place in the task's code."""
        return (
            f"{self.where} asks for values of the batch{place}: {self.question.asked}, so that "
            "what is computed for one example may follow from what others hold; "
            f"{self.question.remedy}"
        )


class ValueKept(RuntimeError):
    """Something of a batch has outlived its pass; says where it was made, and no value.

    Attributes
    ----------
    number
        Of the operator that made it, for `looked_at`.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(self.sentence())

    def sentence(self, place: str = "") -> str:
        """What is refused, with the place in the task's code where it is made."""
        made = f", made{place}" if place else ""
        return (
            f"the model or losses() keeps something of the batches that it has seen{made}: "
            "evaluation and later batches would find it there without noise; keep no averages or "
            "other state between calls (what losses() needs of a pass, forward returns)"
        )


class Made(Exception):
    """The operator that is looked for has been executed."""


def chosen(key: bytes, draw: int) -> bool:
    """Whether a draw is looked at: a secret one in `LOOKED_AT`, the same on every rank.

    Parameters
    ----------
    key
        The attempt's key for this choice, which serves nothing else.
    """
    return int(words(key, draw, 0, 1)[0]) < (1 << 64) // LOOKED_AT


@contextlib.contextmanager
def looked_at(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], *, until: int | None = None
) -> Iterator[Look]:
    """Look at what the model, its losses and their backward pass do with a batch.

    Compiled code runs eagerly meanwhile. What Opacus' hooks ask counts not.

    Parameters
    ----------
    until
        Raise `Made` after the operator of this number, by which `ValueKept` tells of it.

    Raises
    ------
    ValueAsked
        Something asked for the values of the batch, also where the task's code caught this.
    """
    look = Look(model, batch, until)
    with contextlib.ExitStack() as stack:
        # In torch 2.15 the modes alone keep compiled code out too, but nothing promises it.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_functions_in_backward(look))
        stack.enter_context(_Functions(look))
        stack.enter_context(_Operators(look))
        try:
            yield look
        finally:
            if look.refused is not None:
                raise look.refused from None


class Look:
    """What is marked, by storage: views of autograd's are other objects on the same one.

    Attributes
    ----------
    refused
        The first question that was asked.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        batch: Mapping[str, torch.Tensor],
        until: int | None = None,
    ) -> None:
        self._model = model
        self._modules = {id(module): name for name, module in model.named_modules()}
        # In the order of their making. The reference keeps the address from serving another one.
        self._marked: dict[int, StorageWeakRef] = {}
        self._until: int | None = None
        self.function: Callable[..., Any] | None = None
        self.arguments: tuple[Any, ...] = ()
        self.refused: ValueAsked | None = None
        self.mark(list(batch.values()))
        self._until = until

    def check_forgotten(self, besides: Iterable[torch.Tensor] = ()) -> None:
        """Refuse what is marked and still there, the batch too.

        Called when the caller itself holds nothing of either any more.

        Parameters
        ----------
        besides
            What may stay, beside the model's parameters and buffers, which `Untouched` watches.

        Raises
        ------
        ValueKept
        """
        own = (*besides, *self._model.parameters(), *self._model.buffers())
        may_stay = frozenset(map(storage_of, own))
        if self._kept(may_stay):
            gc.collect()  # an exception that was caught holds its frames until then
        for number in self._kept(may_stay):
            raise ValueKept(number)

    def _kept(self, may_stay: frozenset[int | None]) -> list[int]:
        return [
            number
            for number, (address, storage) in enumerate(self._marked.items())
            if address not in may_stay and not storage.expired()
        ]

    def mark(self, value: object) -> None:
        """Mark every tensor within a value."""
        if isinstance(value, torch.Tensor):
            address = storage_of(value)
            with torch._C.DisableTorchFunction():
                is_nested = value.is_nested
            if is_nested:
                self.ask(questions.NESTED)
            elif address is None:
                self.ask(questions.NOT_STRIDED)
            elif address not in self._marked:
                with torch._C.DisableTorchFunction():
                    self._marked[address] = StorageWeakRef(value.untyped_storage())
                if self._until is not None and len(self._marked) > self._until:
                    raise Made
        elif isinstance(value, (tuple, list)):
            for each in value:
                self.mark(each)
        elif isinstance(value, dict):
            self.mark(list(value.values()))

    def is_marked(self, value: object) -> bool:
        """Whether a tensor within a value is marked."""
        if isinstance(value, torch.Tensor):
            return storage_of(value) in self._marked
        if isinstance(value, (tuple, list)):
            return any(self.is_marked(each) for each in value)
        return isinstance(value, dict) and self.is_marked(list(value.values()))

    def ask(self, question: questions.Question) -> None:
        """Refuse a question, unless torch asks it only to raise, or a hook of Opacus.

        Raises
        ------
        ValueAsked
        """
        # By no name of this frame's own: it would keep itself and all callers' tensors, until they
        # are collected.
        if questions.may_be_asked(self.function, self.arguments, inspect.currentframe()):
            return
        remedy = questions.remedy_in_library(inspect.currentframe())
        question = question if remedy is None else replace(question, remedy=remedy)
        self.refused = self.refused or ValueAsked(self._where(inspect.currentframe()), question)
        raise self.refused

    def _where(self, frame: FrameType | None) -> str:
        """The innermost module of the model that is being called."""
        otherwise = "losses()"
        while frame is not None:
            if frame.f_globals.get("__name__") == "torch.autograd.graph":
                otherwise = "the backward pass"
            if frame.f_code.co_name == "_call_impl":
                module = frame.f_locals.get("self")
                name = self._modules.get(id(module))
                if name is not None:
                    return f"module {name or 'model'} ({type(module).__name__})"
            frame = frame.f_back
        return otherwise


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each operator that torch executes, also those of the backward pass."""

    supports_higher_order_operators = True

    def __init__(self, look: Look) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._look = look

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        look = self._look
        if not (look.is_marked(args) or look.is_marked(kwargs)):
            return func(*args, **kwargs)
        kind = questions.kind_of(func)
        question = kind.question(args, kwargs, look.is_marked, look.function)
        if question is not None:
            look.ask(question)
        result = func(*args, **kwargs)
        if not kind.of_shapes:
            look.mark(result)
            look.mark(kind.written(args, kwargs))
        return result


@contextlib.contextmanager
def _functions_in_backward(look: Look) -> Iterator[None]:
    """See functions in the task's hooks and in backward passes of its own, too.

    torch takes the mode off while its own functions run, and `backward` is one of them.
    """
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run(*args: Any, **kwargs: Any) -> Any:
        with _Functions(look):
            return engine(*args, **kwargs)

    torch.autograd._engine_run_backward = run  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.autograd._engine_run_backward = engine  # type: ignore[attr-defined]


class _Functions(TorchFunctionMode):
    """Sees what reads tensors without an operator, and the names by which others are called."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        look = self._look
        before = look.function, look.arguments
        if func not in questions.BACKWARDS:
            look.function, look.arguments = func, (*args, *kwargs.values())
        try:
            asked = questions.of_function(func, args, kwargs)
            if asked is not None and look.is_marked(asked[1]):
                look.ask(asked[0])
            result = func(*args, **kwargs)
            if func in questions.COPIES and look.is_marked(look.arguments):
                look.mark(result)
            return result
        finally:
            look.function, look.arguments = before


def storage_of(tensor: torch.Tensor) -> int | None:
    """The address of a tensor's storage; None for one without, as sparse ones are."""
    try:
        address: int = torch._C._storage_address(tensor)  # type: ignore[attr-defined]
    except NotImplementedError:
        return None
    return address
