"""Errors that values of a batch let torch raise, and that the task's code catches (Rules 8, 21).

What goes on after one is a branch on these values: a matrix of one record that has no Cholesky
factor decides about those of all. So an error is raised within each block of code that could catch
one, and the pass has to end by it.
"""

from __future__ import annotations

import dis
import functools
import inspect
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.watch.structure import ValueAsked
from dtjob_trainer.preflight.rows.marked import MarkedOperators
from dtjob_trainer.preflight.rows.operators import gives_view
from dtjob_trainer.preflight.rows.passes import Batch, Passes
from dtjob_trainer.task import TaskError

# Code, and where in it what catches begins.
_Block = tuple[CodeType, int]
# What an error would meet on its way, the innermost first, and which error it is.
_Way = tuple[int, tuple[_Block, ...]]

_REMEDY = (
    "let it raise, or use what raises nothing and says for each row whether it went well, as "
    "torch.linalg.cholesky_ex, inv_ex and solve_ex do, and torch.where"
)


# As torch words it.
_WORDS = (
    "linalg.cholesky: (Batch element 0): The factorization could not be completed because the "
    "input is not positive-definite (the leading minor of order 1 is not positive-definite). "
    "linalg.inv: (Batch element 0): The diagonal element 1 is zero, the inversion could not be "
    "completed because the input matrix is singular. linalg.svd: The algorithm failed to converge "
    "because the input matrix is ill-conditioned. index out of range in self"
)


class _Raised(torch.linalg.LinAlgError, IndexError, ValueError):  # type: ignore[misc, name-defined]
    """Whatever torch raises by values, and a class of each of these kinds."""


# Code may ask which class an error is of, exactly, or what it says.
_ERRORS: tuple[Callable[[], Exception], ...] = (
    lambda: _Raised("raised to see what catches it"),
    lambda: _Raised(_WORDS),
    lambda: torch.linalg.LinAlgError(_WORDS),  # type: ignore[attr-defined]
)


class _Guarded(MarkedOperators):
    """Raises at the first operator from which an error has a way that has not been tried.

    Attributes
    ----------
    raised
        What it has raised; None if all ways have been tried.
    """

    def __init__(self, passes: Passes, batch: Batch, tried: set[_Way]) -> None:
        super().__init__(passes, batch)
        self.raised: Exception | None = None
        self._tried = tried
        self._base: FrameType | None = None

    def __enter__(self) -> Any:
        frame = inspect.currentframe()
        self._base = frame.f_back if frame is not None else None
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._base = None
        super().__exit__(*error)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Operators.run`."""
        if self.raised is None and not gives_view(func) and self.look.is_marked((args, kwargs)):
            blocks = self._blocks()
            for number, error in enumerate(_ERRORS if blocks else ()):
                if (number, blocks) not in self._tried:
                    self._tried.add((number, blocks))
                    self.raised = error()
                    raise self.raised
        return func(*args, **kwargs)

    def _blocks(self) -> tuple[_Block, ...]:
        """The blocks that would meet an error raised here, one of each function being called.

        All of them, since an inner one may make another error of it.
        """
        found = []
        frame = inspect.currentframe()
        while frame is not None and frame is not self._base:
            for start, end, target in _blocks_of(frame.f_code):
                if start <= frame.f_lasti < end:
                    found.append((frame.f_code, target))
            frame = frame.f_back
        return tuple(found)


def check(passes: Passes, batch: Batch) -> None:
    """Refuse a pass that goes on after an error which the values of a batch may raise.

    Raises
    ------
    TaskError
        Names the line.
    """
    tried: set[_Way] = set()
    while True:
        guarded = _Guarded(passes, batch, tried)
        try:
            passes.take(batch, around=guarded)
        except ValueAsked:
            if guarded.raised is None:
                raise
        except Exception:
            if guarded.raised is None:
                raise
            continue
        if guarded.raised is None:
            return
        raise TaskError(
            Reason.MODEL_REFUSED,
            f"the model or losses() catches errors{_caught_at(guarded.raised)} and goes on, so "
            "that what is computed for one example may follow from what others hold: torch raises "
            f"errors where one row can't be computed; {_REMEDY}",
        )


def _caught_at(error: Exception) -> str:
    """The line, of that function which went on, that led to the error: its traceback ends there."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        return f" at {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
    return ""


@functools.cache
def _blocks_of(code: CodeType) -> list[tuple[int, int, int]]:
    """Return first and last byte, and where an error is met, of each block that meets any."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    return [(entry.start, entry.end, entry.target) for entry in entries]
