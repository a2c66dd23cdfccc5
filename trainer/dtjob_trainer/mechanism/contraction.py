"""Norms and weighted sums of per-example gradients, in fp32 that is fp32 (Rule 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

#: Coordinates whose squares one fp32 chain adds up.
NORM_BLOCK = 256
#: Rows that one fp32 chain adds up: r rows round by up to 2r²·2⁻²⁴·C for one record.
CHAIN_ROWS = 32
# Coordinates at a time, of which a CPU's cache holds the sums; on a GPU each piece is a launch.
_CACHED_COLUMNS = 1 << 16
# Variables by which NVIDIA's libraries, torch, oneDNN and MKL compute products of fp32 numbers with
# fewer bits whatever a program asks for, and the values that leave them as they are.
_SWITCHES = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0",
    "CUBLAS_EMULATE_SINGLE_PRECISION": "0",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "DNNL_DEFAULT_FPMATH_MODE": "STRICT",
    "MKL_BLAS_COMPUTE_MODE": "STANDARD",
}


def squared_norms(gradient: torch.Tensor) -> torch.Tensor:
    """Return the squared L2 norm of each row of `gradient[P, n]` as fp64[P].

    fp32 within blocks, fp64 across them: norms are exact to 2⁻¹⁶. One long fp32 sum of equal terms
    can fall short by more than the slack of the clip. All in fp64 takes ten times as long.
    """
    rows, n = gradient.shape
    whole = n - n % NORM_BLOCK
    squares = torch.zeros(rows, dtype=torch.float64, device=gradient.device)
    if whole:
        blocks = gradient[:, :whole].reshape(rows, -1, NORM_BLOCK)
        squares += torch.linalg.vector_norm(blocks, dim=2).double().square().sum(1)
    if whole < n:
        squares += torch.linalg.vector_norm(gradient[:, whole:], dim=1).double().square()
    return squares


def weighted_sum(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return Σᵢ weightsᵢ·rowsᵢ of `weights[P]` and `rows[P, n]`, both fp32, as fp64[n].

    fp32 within blocks of `CHAIN_ROWS` rows, fp64 across them. Where one fp32 chain adds all
    rows, a record may round each of its partial sums anew: it moved the sum by 1.0028·C at
    P = 512, and by 63·C at P = 65,536. Each block is a product of its own, of which no library
    joins two. Takes P/32 numbers a coordinate beside the result.
    """
    chains, rest = divmod(len(rows), CHAIN_ROWS)
    whole = chains * CHAIN_ROWS
    factors = weights[:whole].view(chains, 1, CHAIN_ROWS)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    columns = _CACHED_COLUMNS if rows.device.type == "cpu" else max(1, rows.shape[1])
    pieces = zip(torch.split(total, columns), torch.split(rows, columns, dim=1), strict=True)
    for part, own in pieces:
        blocks = own[:whole].view(chains, CHAIN_ROWS, own.shape[1])
        part.add_(torch.bmm(factors, blocks).sum((0, 1), dtype=torch.float64))
        if rest:
            part.add_(weights[whole:] @ own[whole:])
    return total


@contextlib.contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Compute fp32 products as fp32: no TF32, no bf16 passes, no autocast (Rule 4).

    Through the backends' own settings: torch's older `get_float32_matmul_precision` raises in a
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


def lowering_switches(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that lower fp32 products from without, each with a value that doesn't.

    `exact_fp32` is overridden by them, or can't see whether it is.
    """
    return {
        name: harmless
        for name, harmless in _SWITCHES.items()
        if environment.get(name, "").upper() not in ("", harmless)
    }
