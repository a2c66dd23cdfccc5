"""Where something that moves on as it is used stands: iterators, and what gives random numbers.

Nothing is taken from it meanwhile.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import GeneratorType

import numpy as np
import torch

#: What the name of a place ends with where it holds a generator of random numbers.
RANDOM_NUMBERS = " (random numbers)"
_OF_PYTHON = ("_collections", "builtins", "itertools")


def position(value: object) -> list[tuple[str, object]] | None:
    """Return what tells two positions apart, each with what is added to its name.

    None where the value is nothing of that kind. A `ContextVar` stands at what it has here.
    """
    if isinstance(value, ContextVar):
        return [("", value.get(None))]
    if (state := _random_state(value)) is not None:
        return [(RANDOM_NUMBERS, hash(state))]
    if isinstance(value, GeneratorType):
        frame = value.gi_frame
        if frame is None:
            return [(" (ended)", True)]
        # What a loop or `yield from` in it is at has no name.
        within = [each for each in gc.get_referents(value) if isinstance(each, Iterator)]
        return [
            (" (place)", frame.f_lasti),
            *((f": {name}", each) for name, each in frame.f_locals.items()),
            *((f" (within {at})", each) for at, each in enumerate(within)),
        ]
    if isinstance(value, Iterator) and type(value).__module__ in _OF_PYTHON:
        return [(" (iterator)", each) for each in _reduced(value)]
    return None


def _random_state(value: object) -> object:
    if isinstance(value, torch.Generator):
        return value.get_state().cpu().numpy().tobytes()
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    return None


def _reduced(iterator: Iterator[object]) -> tuple[object, ...]:
    """What it goes over and where it is, as `copy.copy` would take it.

    Newer versions of Python can't copy those of itertools, and warn before.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = iterator.__reduce__()
    except TypeError:
        return ()
    return parts[1:] if isinstance(parts, tuple) else ()
