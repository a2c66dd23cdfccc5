"""What runs each operator of a pass in its place, below autograd."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class TooMany(BaseException):
    """A pass runs more operators than it may; no code that catches errors of its own goes on."""


class Operators(TorchDispatchMode):
    """Runs each operator as it is, and counts them; others do something before or after."""

    _unseen = False
    _most: float = math.inf

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if Operators._unseen:
            return func(*args, **(kwargs or {}))
        self.count += 1
        if self.count > Operators._most:
            raise TooMany
        return self.run(func, args, kwargs or {})

    @staticmethod
    @contextlib.contextmanager
    def unseen() -> Iterator[None]:
        """Let operators of the dry run's own, in a hook, pass all that follow operators."""
        Operators._unseen = True
        try:
            yield
        finally:
            Operators._unseen = False

    @staticmethod
    @contextlib.contextmanager
    def at_most(most: float) -> Iterator[None]:
        """Let each of them raise `TooMany` after so many operators."""
        Operators._most = most
        try:
            yield
        finally:
            Operators._most = math.inf

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what `func(*args, **kwargs)` gives."""
        return func(*args, **kwargs)


def gives_view(func: Any) -> bool:
    """Whether what an operator gives is a part of what it is given: one row, say."""
    schema = getattr(func, "_schema", None)
    return schema is not None and any(
        each.alias_info is not None and not each.alias_info.is_write for each in schema.returns
    )
