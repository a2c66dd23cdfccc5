"""Random numbers that a pass takes from elsewhere than torch's global generators.

Told are numpy's and Python's global generators, and new ones of `numpy.random.default_rng`. A
generator that was made earlier moves on and gives other losses the second time, which
`refusals.check_repeatable` refuses; not told is one that a task makes in each pass, by
`random.Random` or `numpy.random.RandomState`, and whose numbers are the same each time.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from dtjob_api.reasons import Reason
from dtjob_trainer.preflight.rows.passes import Batch, Passes
from dtjob_trainer.task import TaskError, where_in_task
from dtjob_trainer.usercode.randomness import raising, states

_OWN = ("Python's", "numpy's")
_STATES = frozenset({"get_state", "getstate", "seed", "set_state", "setstate"})


class _Used(Exception):
    """A random number was asked for; the words say by which function."""


def check(passes: Passes, batch: Batch) -> None:
    """Refuse a pass that takes random numbers from Python or numpy: one for several rows.

    Raises
    ------
    TaskError
        Names the function and the line, where the function was not imported by its name.
    """
    try:
        with raising(_functions(), _Used):
            passes.losses(batch)
    except _Used as error:
        raise _message(f"{error}(){where_in_task(error)}") from None
    moved: list[str] = []
    passes.take(batch, around=_moving(passes, moved))
    if moved:
        raise _message(f"{moved[0]} global generator")


@contextlib.contextmanager
def _moving(passes: Passes, moved: list[str]) -> Iterator[None]:
    before = states(passes.device)
    yield
    after = states(passes.device)
    moved += [name for name in _OWN if before[name] != after[name]]


def _functions() -> list[tuple[ModuleType, str]]:
    """Those of both modules that give random numbers."""
    return [
        (module, name)
        for module in (random, np.random)
        for name, value in vars(module).items()
        if name == "default_rng" or (name not in _STATES and _is_of_a_generator(value))
    ]


def _is_of_a_generator(value: object) -> bool:
    owner = getattr(value, "__self__", None)
    return callable(value) and isinstance(owner, random.Random | np.random.RandomState)


def _message(what: str) -> TaskError:
    return TaskError(
        Reason.MODEL_REFUSED,
        f"the model or losses() takes random numbers from {what}: the examples of a batch would "
        "share them; draw them with torch, on the batch's device and of shape [rows, ...], and "
        "use a row's for that row alone",
    )
