"""The random numbers that task code takes from Python, numpy and torch; never those of a step."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def no_seeds() -> Iterator[None]:
    """Let the functions by which a task seeds global generators raise `Seeded`."""
    places = ((torch, "manual_seed"), (torch.random, "manual_seed"), (random, "seed"))
    kept = [(place, name, getattr(place, name)) for place, name in (*places, (np.random, "seed"))]

    def raising(*_: object, **__: object) -> NoReturn:
        raise Seeded

    try:
        for place, name, _ in kept:
            setattr(place, name, raising)
        yield
    finally:
        for place, name, value in kept:
            setattr(place, name, value)


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
