"""The Rényi accountant against exact arithmetic, a numerical integral, and dp-accounting."""

from __future__ import annotations

import math
import sys
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from dtjob_accounting import rdp
from dtjob_accounting.errors import PlanError
from testing.examples import examples

GRID = [
    (sigma, q, draws, delta)
    for sigma in (0.5, 1.0, 2.203, 20.0)
    for q in (1e-5, 1e-3, 256 / 1437, 0.9, 1.0)
    for draws in (1, 366, 100_000)
    for delta in (1e-5, 1e-9)
    if q * draws <= 400 * sigma**2
]


@pytest.mark.parametrize("order", [2, 3, 7, 33, 64])
@pytest.mark.parametrize("q", [1e-9, 1e-4, 0.178, 0.999])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 50.0])
def test_the_curve_is_an_upper_bound_of_the_exact_sum_and_tight(
    order: int, q: float, sigma: float
) -> None:
    """Rule 16's arithmetic, against the sum of the paper in 200 decimal digits."""
    with localcontext() as context:
        context.prec = 200
        rate, variance = Decimal(q), Decimal(sigma) ** 2
        moment = Decimal(0)
        for k in range(order + 1):
            gain = (Decimal(k * (k - 1)) / (2 * variance)).exp()
            moment += math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * gain
        exact = moment.ln() / (order - 1)
    (ours,) = rdp.rdp_curve(sigma, q, [order])
    assert Decimal(ours) >= exact
    assert ours == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(("sigma", "q", "order"), [(1.0, 0.1, 3), (2.203, 0.178, 8), (4.0, 0.5, 2)])
def test_the_curve_bounds_both_directions_of_adjacency(sigma: float, q: float, order: int) -> None:
    """By integration: adding a record never costs more than removing it, the order used."""
    x = np.linspace(-40 * sigma, 40 * sigma + order, 400_001)
    without = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    with_it = (1 - q) * without + q * np.exp(-((x - 1) ** 2) / (2 * sigma**2)) / (
        sigma * math.sqrt(2 * math.pi)
    )
    (ours,) = rdp.rdp_curve(sigma, q, [order])
    with np.errstate(divide="ignore", invalid="ignore"):
        for upper, lower in ((with_it, without), (without, with_it)):
            moments = np.where(lower > 1e-300, lower * (upper / lower) ** order, 0.0)
            divergence = math.log(np.trapezoid(moments, x)) / (order - 1)
            assert divergence <= ours * (1 + 1e-9)


@pytest.mark.parametrize(("sigma", "q", "draws", "delta"), GRID)
def test_epsilon_equals_dp_accountings(sigma: float, q: float, draws: int, delta: float) -> None:
    accountant = RdpAccountant(orders=rdp.DEFAULT_ORDERS)
    accountant.compose(
        dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(sigma)), count=draws
    )
    theirs = accountant.get_epsilon(delta)
    ours = rdp.epsilon(sigma, q, draws, delta)
    # They answer 0 by Pinsker's inequality where we keep the (larger) general bound.
    if theirs > 0:
        # Theirs loses 10 digits to cancellation where a step costs 1e-10; ours is checked above.
        assert theirs * (1 - 1e-9) <= ours <= theirs * (1 + 1e-6) + 1e-12


@settings(max_examples=examples(25))
@given(
    st.floats(0.3, 100),
    st.floats(1e-7, 0.5),
    st.integers(1, 10**5),
    st.floats(1e-10, 1e-2),
    st.floats(1.001, 2.0),
)
def test_epsilon_is_monotone(
    sigma: float, q: float, draws: int, delta: float, factor: float
) -> None:
    if q * draws * factor**2 > 200 * sigma**2:
        return
    epsilon = rdp.epsilon(sigma, q, draws, delta)
    slack = 1 + 1e-9
    assert rdp.epsilon(sigma * factor, q, draws, delta) <= epsilon * slack
    assert rdp.epsilon(sigma, q * factor, draws, delta) * slack >= epsilon
    assert rdp.epsilon(sigma, q, math.ceil(draws * factor), delta) * slack >= epsilon
    assert rdp.epsilon(sigma, q, draws, delta * factor) <= epsilon * slack


@pytest.mark.slow
@settings(max_examples=examples(10))
@given(st.floats(0.1, 50), st.floats(1e-6, 1), st.integers(1, 10**4), st.floats(1e-10, 1e-3))
def test_calibration_is_tight_and_never_over_the_target(
    target: float, q: float, draws: int, delta: float
) -> None:
    sigma = rdp.noise_multiplier(target, delta, q, draws)
    if q * draws <= 400 * sigma**2:
        assert rdp.epsilon(sigma, q, draws, delta) <= target
    if sigma > 0.2 and q * draws <= 300 * sigma**2:
        assert rdp.epsilon(sigma / 1.0002, q, draws, delta) > target


def test_segments_add_up() -> None:
    parts = [(2.203, 0.178, 100), (1.5, 0.178, 30), (2.203, 0.178, 200)]
    merged = [(2.203, 0.178, 300), (1.5, 0.178, 30)]
    assert rdp.epsilon_of_segments(parts, 1e-5) == pytest.approx(
        rdp.epsilon_of_segments(merged, 1e-5), rel=1e-12
    )
    assert rdp.epsilon_of_segments([], 1e-5) == 0
    assert rdp.epsilon(2.203, 0.178, 0, 1e-5) == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((0.01, 0.1, 10, 1e-5), "noiseMultiplier"),
        ((math.nan, 0.1, 10, 1e-5), "noiseMultiplier"),
        ((1e9, 0.1, 10, 1e-5), "noiseMultiplier"),
        ((1.0, 1.0, 10**6, 1e-5), "noiseMultiplier"),
        ((1.0, 0.0, 10, 1e-5), "batchSize"),
        ((1.0, 1.1, 10, 1e-5), "batchSize"),
        ((1.0, 0.1, -1, 1e-5), "steps"),
        ((1.0, 0.1, 10, 0.0), "delta"),
        ((1.0, 0.1, 10, math.nan), "delta"),
    ],
)
def test_what_is_not_supported_is_refused_by_field(
    arguments: tuple[float, float, int, float], field: str
) -> None:
    with pytest.raises(PlanError) as refusal:
        rdp.epsilon(*arguments)
    assert refusal.value.field.endswith(field)


def test_orders_must_be_integers() -> None:
    with pytest.raises(ValueError, match="integers"):
        rdp.rdp_curve(1.0, 0.1, [2, 2.5])  # type: ignore[list-item]


def test_a_step_of_almost_nothing_still_costs_something() -> None:
    """No cancellation: at q = 1e-9 a step costs 1e-18, not 0 and not 1e-16."""
    (step,) = rdp.rdp_curve(1.0, 1e-9, [2])
    assert step == pytest.approx(math.expm1(1.0) * 1e-18, rel=1e-6)
    assert Fraction(step) >= Fraction(1e-9) ** 2 * Fraction(17182818284590452, 10**16)
    assert sys.float_info.min < step
