"""By what two tensors are compared row by row, bit for bit, where there is memory for one."""

from __future__ import annotations

import functools

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
    for given in torch.split(flat, columns, dim=1):
        part = given
        if given.is_floating_point() and given.sum().isnan():
            part = torch.where(given.isnan(), torch.nan, given)
        bits = part.contiguous().view(_BITS[size]).to(weights.dtype)
        total = total * _MULTIPLIER + (bits * weights[: part.shape[1]]).sum(1, dtype=torch.int64)
    return total


@functools.lru_cache(maxsize=8)
def _weights(count: int, wide: bool, device: torch.device) -> torch.Tensor:
    dtype = torch.int64 if wide else torch.int32
    bounds = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(bounds.min, bounds.max, (count,), generator=generator)
    return (drawn.to(dtype) | 1).to(device)
