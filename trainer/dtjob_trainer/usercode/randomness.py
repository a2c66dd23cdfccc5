"""The random numbers that task code takes from Python, numpy and torch; never those of a step."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import NoReturn

import numpy as np
import torch


@contextlib.contextmanager
def same_randomness(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Give task code the same random numbers each time, and leave the process's own untouched."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Those of this device alone: `torch.manual_seed` takes a millisecond for all others.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seeded_by(call: Callable[[], object], device: torch.device) -> list[str]:
    """Return the generators that a call seeds, by name.

    It is made from two states of each. Where a generator's state afterwards is the same, it does
    not follow from the one before: the call has set it. A call that puts the state of before back
    seeds nothing.
    """
    after = []
    for seed in (1, 2):
        with same_randomness(device, seed):
            call()
            after.append(states(device))
    return [name for name, state in after[0].items() if state == after[1][name]]


class Seeded(Exception):
    """A global generator was about to be seeded."""


def no_seeds() -> contextlib.AbstractContextManager[None]:
    """Let the functions by which a task seeds global generators raise `Seeded`."""
    modules = ((torch, "manual_seed"), (torch.random, "manual_seed"), (random, "seed"))
    return raising([*modules, (np.random, "seed")], Seeded)


@contextlib.contextmanager
def raising(
    functions: Collection[tuple[ModuleType, str]], error: Callable[[str], Exception]
) -> Iterator[None]:
    """Let functions of modules, by name, raise the error that is made of `"module.name"`."""

    def stub(called: str) -> Callable[..., NoReturn]:
        def function(*_: object, **__: object) -> NoReturn:
            raise error(called)

        return function

    kept = [(module, name, getattr(module, name)) for module, name in functions]
    try:
        for module, name, _ in kept:
            setattr(module, name, stub(f"{module.__name__}.{name}"))
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def states(device: torch.device) -> dict[str, object]:
    """Return the states of the global generators by their names, to be compared."""
    legacy = np.random.get_state(legacy=False)
    found: dict[str, object] = {
        "Python's": random.getstate(),
        "numpy's": (legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["has_gauss"]),
        "torch's": torch.get_rng_state().numpy().tobytes(),
    }
    if device.type == "cuda":
        found["torch's on the GPU"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return found
