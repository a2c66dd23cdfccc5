"""One draw of a job as the accountants see it, and for whom."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Adjacency(StrEnum):
    """In what neighbouring data sets differ; no sensitivity and no ε means anything without it."""

    ADD_REMOVE = "AddRemove"
    """One of them has one record more."""
    REPLACE_ONE = "ReplaceOne"
    """One record of the one stands where the other has another."""


class SampledGaussian(NamedTuple):
    """A sum over a Poisson draw, with Gaussian noise of σ times its sensitivity.

    The accountants compose (1 − q)·N(0, σ²) + q·N(1, σ²) against N(0, σ²), in both directions,
    which dominates a draw under add/remove adjacency: Mironov, Talwar, Zhang, "Rényi Differential
    Privacy of the Sampled Gaussian Mechanism" (arXiv:1908.10530); Zhu, Dong, Wang,
    "Optimal Accounting of Differential Privacy via Characteristic Function" (arXiv:2106.08567).

    Attributes
    ----------
    noise_multiplier
        σ.
    sample_rate
        q, which no record's probability to be drawn exceeds.
    """

    noise_multiplier: float
    sample_rate: float
