"""Rényi differential privacy of the Poisson-subsampled Gaussian, from the standard library alone.

Integer orders, add/remove adjacency. Follows Mironov, Talwar, Zhang, "Rényi Differential Privacy
of the Sampled Gaussian Mechanism" (arXiv:1908.10530), equation (3) of section 3.3, whose
A_α = Σₖ C(α,k) (1-q)^(α-k) qᵏ exp(k(k-1)/2σ²) bounds both directions of the adjacency. With the
terms of Σₖ C(α,k) (1-q)^(α-k) qᵏ = 1 taken off, A_α - 1 is a sum of positive terms: nothing
cancels, even where a step costs 1e-20.

Curves and ε are rounded up: by a bound of the rounding errors, not by a directed mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from dtjob_accounting.limits import (
    MAX_NOISE_MULTIPLIER,
    MIN_NOISE_MULTIPLIER,
    Segment,
    check_mechanism,
    check_segments,
    check_target,
    epsilon_unreachable,
)

DEFAULT_ORDERS: tuple[int, ...] = (
    *range(2, 65), 72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024,
)  # fmt: skip

# Each logarithm of a term is a handful of operations on numbers of at most its magnitude.
_ULPS = 16 * 2.0**-52


def rdp_curve(
    noise_multiplier: float, sample_rate: float, orders: Sequence[int] = DEFAULT_ORDERS
) -> list[float]:
    """Return the Rényi divergence of one step at each order, rounded up.

    Parameters
    ----------
    noise_multiplier
        σ > 0, standard deviation over sensitivity.
    sample_rate
        q in (0, 1].
    orders
        Integer orders α >= 2.

    Raises
    ------
    PlanError
        When σ or q lies outside what is supported.
    ValueError
        On an order that is not an integer of at least 2.
    """
    check_mechanism(noise_multiplier, sample_rate, draws=0)
    if any(order != int(order) or order < 2 for order in orders):
        raise ValueError(f"orders {orders} must be integers of at least 2")
    return list(_curve(noise_multiplier, sample_rate, tuple(orders)))


def epsilon_of_curve(orders: Sequence[int], totals: Sequence[float], delta: float) -> float:
    """Return the least ε over the orders at δ, rounded up.

    ε(α) = total + ln(1 - 1/α) - ln(α·δ)/(α - 1): Canonne, Kamath, Steinke, "The Discrete Gaussian
    for Differential Privacy" (arXiv:2004.00010), proposition 12.
    """
    least = min(
        total + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order, total in zip(orders, totals, strict=True)
    )
    return max(0.0, least + _ULPS * (1 + abs(least)))


def epsilon(noise_multiplier: float, sample_rate: float, draws: int, delta: float) -> float:
    """Return an upper bound of ε after `draws` draws, by the default orders.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported.
    """
    return epsilon_of_segments([(noise_multiplier, sample_rate, draws)], delta)


def epsilon_of_segments(segments: Sequence[Segment], delta: float) -> float:
    """Return an upper bound of ε after all segments (σ, q, draws): their curves add up.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported.
    """
    check_segments(segments, delta)
    return least_epsilon(segments, delta)


def noise_multiplier(
    epsilon: float, delta: float, sample_rate: float, draws: int, *, accuracy: float = 1e-4
) -> float:
    """Return a σ whose `epsilon` does not exceed the target, at most `accuracy` of it too large.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported, or no supported σ reaches the target.
    """
    check_target(epsilon, delta, sample_rate, draws)

    def within(sigma: float) -> bool:
        return least_epsilon([(sigma, sample_rate, draws)], delta) <= epsilon

    low, high = MIN_NOISE_MULTIPLIER, 1.0
    if within(low):
        return low
    while not within(high):
        low, high = high, min(4 * high, MAX_NOISE_MULTIPLIER)
        if low >= MAX_NOISE_MULTIPLIER:
            raise epsilon_unreachable(epsilon, delta, sample_rate, draws)
    while high > low * (1 + accuracy):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def least_epsilon(segments: Sequence[Segment], delta: float) -> float:
    """Return the bound of supported segments for any δ above 0, by the best of the orders."""
    if not any(draws for _, _, draws in segments):
        return 0.0
    totals = [0.0] * len(DEFAULT_ORDERS)
    for sigma, sample_rate, draws in segments:
        curve = _curve(sigma, sample_rate, DEFAULT_ORDERS)
        totals = [
            (total + draws * step) * (1 + _ULPS) for total, step in zip(totals, curve, strict=True)
        ]
    return epsilon_of_curve(DEFAULT_ORDERS, totals, delta)


@lru_cache(maxsize=64)
def _curve(sigma: float, sample_rate: float, orders: tuple[int, ...]) -> list[float]:
    """Return the divergence at each order; a ledger's bound asks for the same one at each lease."""
    if sample_rate == 1:
        return [order / (2 * sigma**2) * (1 + _ULPS) for order in orders]
    gains = [_log_expm1(k * (k - 1) / (2 * sigma**2)) for k in range(2, max(orders) + 1)]
    return [_rdp(order, sample_rate, gains) for order in orders]


def _rdp(order: int, sample_rate: float, gains: Sequence[float]) -> float:
    """Return ln(A_α) / (α - 1), rounded up; `gains[k-2]` is ln(exp(k(k-1)/2σ²) - 1)."""
    log_drawn, log_kept = math.log(sample_rate), math.log1p(-sample_rate)
    terms = [
        binomial + k * log_drawn + (order - k) * log_kept + gain
        for k, binomial, gain in zip(
            range(2, order + 1), _log_binomials(order), gains, strict=False
        )
    ]
    largest = max(terms)
    log_excess = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    magnitude = (
        2 * math.lgamma(order + 2) - order * (log_drawn + log_kept) + abs(gains[order - 2])
        + abs(gains[0])
    )  # fmt: skip
    log_excess += _ULPS * magnitude
    log_a = max(log_excess, 0.0) + math.log1p(math.exp(-abs(log_excess)))
    return log_a / (order - 1) * (1 + _ULPS)


@lru_cache(maxsize=256)
def _log_binomials(order: int) -> tuple[float, ...]:
    """Return ln C(α, k) for k = 2 … α."""
    whole = math.lgamma(order + 1)
    return tuple(
        whole - math.lgamma(k + 1) - math.lgamma(order - k + 1) for k in range(2, order + 1)
    )


def _log_expm1(x: float) -> float:
    """Return ln(eˣ - 1) for x > 0 without overflow."""
    return math.log(math.expm1(x)) if x < 1 else x + math.log1p(-math.exp(-x))
