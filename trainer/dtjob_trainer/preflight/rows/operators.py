"""What runs each operator of a pass in its place, below autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Runs each operator as it is; others do something before or after."""

    _unseen = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if Operators._unseen:
            return func(*args, **(kwargs or {}))
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

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what `func(*args, **kwargs)` gives."""
        return func(*args, **kwargs)


def gives_view(func: Any) -> bool:
    """Whether what an operator gives is a part of what it is given: one row, say."""
    schema = getattr(func, "_schema", None)
    return schema is not None and any(
        each.alias_info is not None and not each.alias_info.is_write for each in schema.returns
    )
