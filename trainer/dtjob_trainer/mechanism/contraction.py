"""Norms and weighted sums of per-example gradients, in fp32 that is fp32 (Rule 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_NORM_BLOCK = 256


def squared_norms(gradient: torch.Tensor) -> torch.Tensor:
    """Return the squared L2 norm of each row of ``gradient[P, n]`` as fp64[P].

    fp32 within blocks, fp64 across them: exact to 2⁻¹⁷, where one long fp32 sum of equal terms
    can fall short by more than the clip's slack (Rule 4). All in fp64 takes ten times as long.
    """
    rows, n = gradient.shape
    whole = n - n % _NORM_BLOCK
    squares = torch.zeros(rows, dtype=torch.float64, device=gradient.device)
    if whole:
        blocks = gradient[:, :whole].reshape(rows, -1, _NORM_BLOCK)
        squares += torch.linalg.vector_norm(blocks, dim=2).double().square().sum(1)
    if whole < n:
        squares += torch.linalg.vector_norm(gradient[:, whole:], dim=1).double().square()
    return squares


@contextlib.contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Compute fp32 products as fp32: no TF32, no bf16 passes, no autocast (Rule 4).

    Through the backends' own settings: torch's older ``get_float32_matmul_precision`` raises in a
    process whose task has used these.
    """
    backends: Any = torch.backends
    products = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [each.fp32_precision for each in products]
    for each in products:
        each.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for each, precision in zip(products, before, strict=True):
            each.fp32_precision = precision
