"""Standard normals as a pure function of key, draw and coordinate (Rule 7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtjob_trainer.mechanism.prf import words

# Radii of words nearer than this to an end lie too far apart: gaps between them, or the number of
# them in a cell, would show through the lattice. It happens to one pair of coordinates in 2²³.
RARE = 1 << 40
# Where the words for such a pair begin: no pair comes so far.
_FURTHER_WORDS = 1 << 64


def gaussian(key: bytes, draw: int, start: int, count: int) -> npt.NDArray[np.float64]:
    """Return standard normals for coordinates `start .. start + count - 1` (Rule 7).

    The pair of coordinates 2p and 2p + 1 is made of words 2p and 2p + 1 of the stream of
    `(key, draw)`, and of words 2⁶⁴ + 2p and 2⁶⁴ + 2p + 1, one block more, where the first is rare:
    see `box_muller`.

    Returns
    -------
    ndarray[count] of float64
        Any part equals that part of the whole, bit for bit.
    """
    first_pair, skip = divmod(start, 2)
    pairs = (skip + count + 1) // 2
    stream = words(key, draw, 2 * first_pair, 2 * pairs).reshape(pairs, 2)
    rare = np.flatnonzero(_to_the_end(stream[:, 0]) < RARE)
    further = [
        words(key, draw, _FURTHER_WORDS + 2 * (first_pair + pair), 2) for pair in rare.tolist()
    ]
    normals = box_muller(stream, rare, np.array(further, np.uint64).reshape(-1, 2))
    return normals.reshape(-1)[skip : skip + count]


def box_muller(
    stream: npt.NDArray[np.uint64],
    rare: npt.NDArray[np.intp],
    further: npt.NDArray[np.uint64],
) -> npt.NDArray[np.float64]:
    """Return pairs of independent standard normals from uniform words (Box and Muller 1958).

    With words w, v of a pair its normals are √(−2 ln u)·cos φ and √(−2 ln u)·sin φ, where
    φ = 2π·(v + ½)·2⁻⁶⁴ and u = (w + ½)·2⁻⁶⁴. Where w < 2⁴⁰, its further words s, t take the place
    of the ½: u = (w + (s + (t + ½)·2⁻⁶⁴)·2⁻⁶⁴)·2⁻⁶⁴. The upper half mirrors the lower:
    u(2⁶⁴ − 1 − w) = 1 − u(w), and ln u is taken as log1p of −u(w). In fp64, so that a radius has
    its whole precision also where it is small.

    Parameters
    ----------
    stream
        uint64[pairs, 2]: w and v.
    rare
        intp[k]: the pairs of which w is less than 2⁴⁰ from an end.
    further
        uint64[k, 2]: s and t of these.

    Returns
    -------
    ndarray[pairs, 2] of float64
    """
    radius = np.sqrt(2.0 * _exponential(np.ascontiguousarray(stream[:, 0]), rare, further))
    turn = (np.ascontiguousarray(stream[:, 1]).astype(np.float64) + 0.5) * 2.0**-64
    angle = (2.0 * np.pi) * turn
    normals = np.empty((len(stream), 2))
    np.multiply(radius, np.cos(angle), out=normals[:, 0])
    np.multiply(radius, np.sin(angle), out=normals[:, 1])
    return normals


def _exponential(
    w: npt.NDArray[np.uint64], rare: npt.NDArray[np.intp], further: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float64]:
    """Return −ln u, float64[pairs], as `box_muller` has it."""
    to_the_end = _to_the_end(w)
    share = to_the_end.astype(np.float64) + 0.5
    s, t = further.astype(np.float64).T
    share[rare] = to_the_end[rare].astype(np.float64) + (s + (t + 0.5) * 2.0**-64) * 2.0**-64
    share *= 2.0**-64
    return -np.where(w >> np.uint64(63), np.log1p(-share), np.log(share))


def _to_the_end(w: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the words between w and the nearer of 0 and 2⁶⁴ − 1, exactly."""
    return np.minimum(w, ~w)
