"""By what two tensors are compared row by row, bit for bit, where there is memory for one."""

from __future__ import annotations

import functools

import numpy as np
import torch

# Bytes at a time: what a CPU's cache holds; on a GPU each piece is a launch.
_CACHED_BYTES = 1 << 22
_PIECE_BYTES = 1 << 26
_MULTIPLIER = 0x5851F42D4C957F2D  # of Knuth's MMIX generator
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprints(tensor: torch.Tensor) -> torch.Tensor:
    """Return a number for each row of a tensor [P, ...], as int64[P].

    A sum of wⱼ·bⱼ modulo 2³² for each piece of a row, where bⱼ are the bits of an entry, all NaN
    alike, and wⱼ odd numbers of a fixed pseudo-random sequence; the pieces' sums are joined modulo
    2⁶⁴. Rows that differ in one entry have different ones, others the same with a probability of
    about 2⁻³². How long a piece is follows from P and device: those of one shape compare.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    flat = tensor.detach().reshape(len(tensor), -1)
    size = flat.element_size()
    at_once = _CACHED_BYTES if flat.device.type == "cpu" else _PIECE_BYTES
    columns = max(1, at_once // (size * max(1, len(flat))))
    weights = _weights(min(columns, flat.shape[1]), size == 8, flat.device)
    total = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    spoilt = torch.empty(0, dtype=torch.int64, device=flat.device)
    if flat.is_floating_point():
        spoilt = flat.sum(1).isnan().nonzero().flatten()
    for part in torch.split(flat, columns, dim=1):
        sums = _weighted(part, weights)
        if len(spoilt):
            rows = part[spoilt]
            sums[spoilt] = _weighted(torch.where(rows.isnan(), torch.nan, rows), weights)
        total = total * _MULTIPLIER + sums
    return total


def same_rows(one: torch.Tensor | None, other: torch.Tensor | None, rows: list[int]) -> bool:
    """Whether these rows have the same fingerprints in both, or there are none in either."""
    if one is None or other is None:
        return one is other
    return torch.equal(one[rows], other[rows])


def _weighted(part: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ wⱼ·bⱼ of each row, modulo 2³² or 2⁶⁴."""
    bits = part.view(_BITS[part.element_size()]).to(weights.dtype)
    weights = weights[: bits.shape[1]]
    if bits.device.type == "cpu":
        # Reads each entry once, and in one thread: where cores are shared, threads that wait for
        # one another after each piece took ten times as long.
        return torch.mv(bits, weights)
    return (bits * weights).sum(1, dtype=weights.dtype)  # CUDA has no such product of integers


@functools.lru_cache(maxsize=8)
def _weights(count: int, wide: bool, device: torch.device) -> torch.Tensor:
    dtype = np.int64 if wide else np.int32
    bounds = np.iinfo(dtype)
    # Not of torch's: operators that draw numbers may be looked at.
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.integers(bounds.min, bounds.max, count, dtype, endpoint=True)
    return torch.from_numpy(drawn | 1).to(device)
