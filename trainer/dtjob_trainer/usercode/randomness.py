"""The random numbers that task code takes from Python, numpy and torch; never those of a step."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def same_randomness(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Give task code the same random numbers each time, and leave the process's own untouched."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
