"""Gaussian noise on a lattice, as a pure function of key, draw and coordinate (Rule 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtjob_trainer.mechanism.prf import words

_GRID_BITS = 30
_EXACT_BITS = 52
# Radii of words below this are the ends of the noise, where 64 bits leave gaps that show through
# the lattice: a second word, from a part of the stream that nothing else uses, fills them.
_FEW = 1 << 32
_SECOND_WORDS = 1 << 64
# Coordinates at a time: bounds what noise needs beside the sum itself.
_CHUNK = 1 << 20
# Keeps squares of gradients near C, and every multiple of g, well inside fp32's range.
_SMALLEST = 2.0**-40


def gaussian(key: bytes, draw: int, start: int, count: int) -> npt.NDArray[np.float64]:
    """Return standard normals for coordinates ``start .. start + count - 1`` (Rule 7).

    Box and Muller (1958) in fp64: coordinate i uses words w = 2⌊i/2⌋ and the next as
    u = (w + ½)·2⁻⁶⁴ and v likewise, and is √(−2 ln u)·cos 2πv for even i, √(−2 ln u)·sin 2πv for
    odd i. Where w < 2³², u = (w + (w' + ½)·2⁻⁶⁴)·2⁻⁶⁴ with word w' = 2⁶⁴ + ⌊i/2⌋ of the same
    stream. The tail ends at √(2·129·ln 2) = 13.37.
    """
    first_pair, skip = divmod(start, 2)
    pairs = (skip + count + 1) // 2
    stream = words(key, draw, 2 * first_pair, 2 * pairs).reshape(pairs, 2)
    uniforms = _uniform(stream)
    for pair in np.flatnonzero(stream[:, 0] < _FEW).tolist():
        second = words(key, draw, _SECOND_WORDS + first_pair + pair, 1)
        uniforms[pair, 0] = (float(stream[pair, 0]) + _uniform(second)[0]) * 2.0**-64
    radius = np.sqrt(-2.0 * np.log(np.ascontiguousarray(uniforms[:, 0])))
    angle = (2.0 * np.pi) * np.ascontiguousarray(uniforms[:, 1])
    normals = np.empty((pairs, 2))
    np.multiply(radius, np.cos(angle), out=normals[:, 0])
    np.multiply(radius, np.sin(angle), out=normals[:, 1])
    return normals.reshape(-1)[skip : skip + count]


def _uniform(stream: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """(w + ½)·2⁻⁶⁴ in (0, 1]."""
    return np.asarray((stream.astype(np.float64) + 0.5) * 2.0**-64)


@dataclass(frozen=True)
class Lattice:
    """The Gaussian mechanism with its output on multiples of one power of two (Rule 7).

    Parameters
    ----------
    noise_multiplier
        σ, between 2⁻⁴⁰ and 2⁴⁰. The noise has standard deviation σΔ in every coordinate.
    sensitivity
        Δ, between 2⁻⁴⁰ and 2⁴⁰: what one record changes the sum by at most, rounding to the
        lattice included. It is maxGradNorm, by which errors call it.
    coordinates
        d >= 1, the number of trainable coordinates.

    Raises
    ------
    ValueError
        σ, Δ or d is out of range. That the clip's slack covers the rounding is for
        `slack.Roundings` to check.
    """

    noise_multiplier: float
    sensitivity: float
    coordinates: int

    def __post_init__(self) -> None:
        given = {"noise_multiplier": self.noise_multiplier, "max_grad_norm": self.sensitivity}
        for name, value in given.items():
            if not _SMALLEST <= value <= 1 / _SMALLEST:
                raise ValueError(f"{name} {value} must lie between 2⁻⁴⁰ and 2⁴⁰")
        if self.coordinates < 1:
            raise ValueError(f"a model needs a trainable coordinate, not {self.coordinates}")

    @property
    def scale(self) -> float:
        """σΔ, the standard deviation of the noise."""
        return self.noise_multiplier * self.sensitivity

    @property
    def grid(self) -> float:
        """g = 2^(⌊log2(σΔ)⌋ − 30)."""
        _, exponent = math.frexp(self.scale)
        return math.ldexp(1.0, exponent - 1 - _GRID_BITS)

    def noised(
        self,
        total: npt.NDArray[np.float64],
        key: bytes,
        draw: int,
        start: int,
    ) -> npt.NDArray[np.float64]:
        """Round a slice of the reduced sum to the lattice and add its noise, exactly (Rule 7).

        Parameters
        ----------
        total
            float64[n]: coordinates ``start .. start + n - 1`` of the sum over all ranks.
        key, draw, start
            The attempt's noise key, the charge index, the slice's first coordinate.

        Returns
        -------
        ndarray[n] of float64
            Multiples of ``grid``; a slice equals that slice of the whole, bit for bit.

        Raises
        ------
        OverflowError
            A coordinate is not finite or reaches 2⁵²·g, where sums stop being exact.
        """
        grid, scale = self.grid, self.scale
        noised = np.empty(total.size)
        for first in range(0, total.size, _CHUNK):
            part = total[first : first + _CHUNK]
            if not np.all(np.abs(part) < math.ldexp(grid, _EXACT_BITS)):
                raise OverflowError("the summed gradient left the range of the noise lattice")
            noise = np.rint(gaussian(key, draw, start + first, part.size) * scale / grid)
            noised[first : first + _CHUNK] = (np.rint(part / grid) + noise) * grid
        return noised
