"""The Gaussian mechanism's noise, on a lattice and added exactly (Rule 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtjob_trainer.mechanism.normals import gaussian

_GRID_BITS = 30
# In cells: with the noise, which is below 2³⁶, less than the 2⁵³ up to which fp64 is exact.
_FARTHEST = 2.0**52 - 1
# Coordinates at a time: bounds what noise needs beside the sum itself.
_CHUNK = 1 << 20
# Keeps squares of gradients near C, and every multiple of g, well inside fp32's range.
_SMALLEST = 2.0**-40


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

        Whatever the sum is, it is noised: an error would tell of the data. Coordinates beyond
        (2⁵² − 1)·g, where sums stop being exact, are moved there first, each by itself. That
        projects onto a box, so that sums of neighbours come no further apart (1-Lipschitz), and
        the sensitivity stays. NaN, which no sum of clipped rows holds, counts as zero.

        Parameters
        ----------
        total
            float64[n]: coordinates `start .. start + n - 1` of the sum over all ranks.
        key, draw, start
            The attempt's noise key, the charge index, the slice's first coordinate.

        Returns
        -------
        ndarray[n] of float64
            Multiples of `grid`; a slice equals that slice of the whole, bit for bit.
        """
        grid, scale = self.grid, self.scale
        farthest = _FARTHEST * grid
        noised = np.empty(total.size)
        for first in range(0, total.size, _CHUNK):
            part = np.clip(total[first : first + _CHUNK], -farthest, farthest)
            cells = np.rint(np.where(np.isnan(part), 0.0, part) / grid)
            noise = gaussian(key, draw, start + first, part.size) * (scale / grid)
            # Ties go up: to even, as by rint, even cells would get more than their share.
            noised[first : first + _CHUNK] = (cells + np.floor(noise + 0.5)) * grid
        return noised
