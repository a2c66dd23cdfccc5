"""The PLD accountant: an upper bound, close to the truth, and consistent with its calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
from dp_accounting.pld import common, privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import ncx2, norm

from dtjob_accounting import draws, pld, rdp
from dtjob_accounting.errors import PlanError
from testing.examples import examples

pytestmark = pytest.mark.slow

DIGITS_RATE = draws.sample_rate(256, 1437)


def exact_gaussian_delta(mu: float, epsilon: float) -> float:
    """δ(ε) of the Gaussian mechanism: Balle and Wang 2018, theorem 8."""
    return float(
        norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    )


@pytest.mark.rule(9)
def test_the_digits_job() -> None:
    sigma = pld.noise_multiplier(8, 1e-5, DIGITS_RATE, 366)
    assert sigma == pytest.approx(2.2035, abs=5e-4)
    assert 7.99 < pld.epsilon(sigma, DIGITS_RATE, 366, 1e-5) <= 8


@pytest.mark.rule(23)
@pytest.mark.parametrize(
    ("sigma", "rate", "count", "delta"),
    [
        (2.203, DIGITS_RATE, 366, 1e-5),
        (1.0, 0.01, 1000, 1e-5),
        (1.1, 256 / 60_000, 14_000, 1e-5),
        (20.0, 0.05, 2000, 1e-6),
    ],
)
def test_epsilon_bounds_dp_accountings_fine_grid_and_is_close(
    sigma: float, rate: float, count: int, delta: float
) -> None:
    """Against its own pessimistic and optimistic estimates on a 10 times finer grid."""
    ours = pld.epsilon(sigma, rate, count, delta)
    for pessimistic, slack in ((False, 0.0), (True, 1e-4)):
        theirs = (
            privacy_loss_distribution.from_gaussian_mechanism(
                sigma,
                sampling_prob=rate,
                pessimistic_estimate=pessimistic,
                use_connect_dots=pessimistic,
                value_discretization_interval=1e-4,
            )
            .self_compose(count)
            .get_epsilon_for_delta(delta)
        )
        assert ours >= theirs * (1 - slack)
    assert ours <= theirs * 1.005


@pytest.mark.rule(23)
@pytest.mark.parametrize(
    ("sigma", "count", "delta"),
    [(300.0, 100_000, 1e-5), (10.0, 366, 1e-9), (1000.0, 1_000_000, 1e-9), (1.0, 1, 1e-5)],
)
def test_epsilon_bounds_the_exact_gaussian(sigma: float, count: int, delta: float) -> None:
    """With q = 1 the composition is known in closed form. δ = 1e-9 at T = 1e6 costs the 3 %."""
    mu = math.sqrt(count) / sigma
    exact = brentq(lambda e: math.log(exact_gaussian_delta(mu, e) / delta), 0.01, 30)
    ours = pld.epsilon(sigma, 1.0, count, delta)
    assert exact <= ours <= exact * 1.03


@pytest.mark.parametrize(
    ("sigma", "rate", "count"), [(2.203, DIGITS_RATE, 366), (1.0, 1e-3, 100_000)]
)
def test_the_allowance_for_fft_errors_covers_them(sigma: float, rate: float, count: int) -> None:
    """dp-accounting's composition in double against extended precision, same bounds."""
    interval = pld._interval(sigma, rate)
    step = pld._step(sigma, rate, interval, 1)._pmf_remove.to_dense_pmf()
    low, high = common.compute_self_convolve_bounds(step._probs, count, 1e-15)
    length = scipy.fft.next_fast_len(max(high - low + 1, len(step._probs)))

    double = np.real(scipy.fft.ifft(scipy.fft.fft(step._probs, length) ** count))
    factor = scipy.fft.fft(step._probs.astype(np.longdouble), length)
    power, remaining = np.ones_like(factor), count
    while remaining:
        power = power * factor if remaining & 1 else power
        factor, remaining = factor * factor, remaining >> 1
    extended = np.real(scipy.fft.ifft(power))

    difference = np.roll(double - extended, -low)[: high - low + 1]
    losses = (np.arange(len(difference)) + step._lower_loss * count + low) * interval
    for epsilon in np.geomspace(0.01, losses[-1] * 0.9, 40):
        above = losses > epsilon
        error = np.sum(-np.expm1(epsilon - losses[above]) * difference[above])
        assert abs(error) <= count * pld._FFT_ERROR / 2


@pytest.mark.rule(23)
def test_the_profile_bounds_the_exact_gaussian_even_in_the_fft_s_noise() -> None:
    """At ε = 7, δ = 5e-12, where dp-accounting's pessimistic estimate itself is too small."""
    mu = math.sqrt(1_000_000) / 1000
    epsilons = [0.0, 0.5, 2.0, 5.0, 7.0, 8.0]
    for epsilon, delta in zip(
        epsilons, pld.profile([(1000.0, 1.0, 1_000_000)], epsilons), strict=True
    ):
        assert exact_gaussian_delta(mu, epsilon) <= delta


@pytest.mark.rule(13)
@settings(max_examples=examples(5))
@given(
    st.floats(0.8, 30),
    st.floats(1e-3, 0.5),
    st.integers(1, 2000),
    st.floats(1e-8, 1e-3),
    st.floats(1.02, 2.0),
)
def test_epsilon_is_monotone_and_below_the_renyi_bound(
    sigma: float, rate: float, count: int, delta: float, factor: float
) -> None:
    if rate * count * factor**2 > 200 * sigma**2:
        return
    epsilon = pld.epsilon(sigma, rate, count, delta)
    slack = 1 + 1e-5  # rounding to 6 digits
    assert pld.epsilon(sigma * factor, rate, count, delta) <= epsilon * slack
    assert pld.epsilon(sigma, rate * factor, count, delta) * slack >= epsilon
    assert pld.epsilon(sigma, rate, math.ceil(count * factor), delta) * slack >= epsilon
    assert pld.epsilon(sigma, rate, count, delta * factor) <= epsilon * slack
    assert epsilon <= rdp.epsilon(sigma, rate, count, delta) * slack


@pytest.mark.rule(13)
def test_epsilon_never_falls_along_a_job() -> None:
    spent = [pld.epsilon(2.203, DIGITS_RATE, charged, 1e-5) for charged in range(0, 367, 17)]
    assert spent[0] == 0
    assert spent == sorted(spent)


@pytest.mark.rule(9)
@settings(max_examples=examples(3))
@given(st.floats(0.1, 20), st.floats(0.02, 1), st.integers(10, 3000), st.floats(1e-7, 1e-4))
def test_a_calibrated_sigma_keeps_the_target_and_wastes_little(
    target: float, rate: float, count: int, delta: float
) -> None:
    sigma = pld.noise_multiplier(target, delta, rate, count)
    reached = pld.epsilon(sigma, rate, count, delta)
    assert reached <= target
    if sigma > 0.11:
        assert pld.epsilon(sigma / 1.001, rate, count, delta) > target


@pytest.mark.parametrize(
    ("target", "delta", "rate", "count"),
    [
        (8, 1e-5, 1e-6, 1),  # q·T < δ: no noise would do; never below 0.1
        (100, 1e-5, 1.0, 100),  # far above what integer Rényi orders resolve
        (1e-4, 1e-6, 0.01, 10),  # far below
        (12, 1e-5, 0.05, 50),  # the root of the search, rounded up, is a digit too small
        (1, 1e-11, 1e-3, 1_000_000),  # δ below the error of the FFT: the Rényi bound
    ],
)
def test_extreme_targets_are_met(target: float, delta: float, rate: float, count: int) -> None:
    sigma = pld.noise_multiplier(target, delta, rate, count)
    assert 0.1 <= sigma <= 1e4
    assert pld.epsilon(sigma, rate, count, delta) <= target


@pytest.mark.parametrize(
    ("target", "delta", "rate", "count", "field"),
    [
        (1e-7, 1e-7, 1.0, 10_000, "epsilon"),
        (0, 1e-5, 0.1, 10, "epsilon"),
        (101, 1e-5, 0.1, 10, "epsilon"),
        (math.nan, 1e-5, 0.1, 10, "epsilon"),
        (1, 1e-13, 0.1, 10, "delta"),
        (1, 1e-5, 0.1, 10**8, "steps"),
        (1, 1e-5, 0.1, 0, "steps"),
    ],
)
def test_impossible_targets_name_their_field(
    target: float, delta: float, rate: float, count: int, field: str
) -> None:
    with pytest.raises(PlanError) as refusal:
        pld.noise_multiplier(target, delta, rate, count)
    assert refusal.value.field.endswith(field)
    assert refusal.value.remedy


@pytest.mark.rule(14)
def test_segments_compose_whatever_their_order() -> None:
    once = pld.epsilon(2.203, DIGITS_RATE, 366, 1e-5)
    split = pld.epsilon_of_segments([(2.203, DIGITS_RATE, 300), (2.203, DIGITS_RATE, 66)], 1e-5)
    assert split == pytest.approx(once, rel=1e-4)
    mixed = [(2.203, DIGITS_RATE, 300), (4.0, 0.01, 200)]
    assert pld.epsilon_of_segments(mixed, 1e-5) == pytest.approx(
        pld.epsilon_of_segments(mixed[::-1], 1e-5), rel=1e-6
    )
    assert pld.epsilon_of_segments(mixed, 1e-5) > pld.epsilon_of_segments(mixed[:1], 1e-5)
    assert pld.epsilon_of_segments([], 1e-5) == 0


def test_an_empty_segment_changes_nothing() -> None:
    """A ledger opens a segment before its first draw."""
    alone = pld.epsilon(2.203, DIGITS_RATE, 10, 1e-5)
    assert pld.epsilon_of_segments([(2.203, DIGITS_RATE, 10), (2.203, DIGITS_RATE, 0)], 1e-5) == (
        pytest.approx(alone, rel=1e-9)
    )


def outside(shift: float) -> float:
    """The chance that a pair of normals, shifted, lies beyond the reach: Marcum's Q."""
    return float(ncx2.sf(14.89**2, 2, shift**2))


@pytest.mark.rule(7)
@pytest.mark.parametrize("shift", [0.1, 1.0, 2.0, 5.0, 1 / 0.13, 10.0, 14.0, 14.89, 15.0, 25.0, 50])
def test_the_end_of_the_noise_is_bounded_from_above_and_closely(shift: float) -> None:
    exact = outside(shift)  # whose own error is 5e-8 where it is least
    assert exact * (1 - 1e-7) <= pld._outside(shift) <= min(1.0, 1.01 * exact + (shift > 10))
    assert pld._outside(shift) <= 1


@pytest.mark.rule(7)
@pytest.mark.parametrize("shift", [2.0, 5.0, 10.0, 14.0, 20.0])
def test_the_end_of_the_noise_shows_most_where_one_pair_is_shifted(shift: float) -> None:
    """Over pairs that share the shift, the noise stays within all circles more often."""
    alone = 1 - outside(shift)
    for part in np.linspace(0, 1, 21):
        shared = (1 - outside(shift * part**0.5)) * (1 - outside(shift * (1 - part) ** 0.5))
        assert shared >= alone - 1e-15


@pytest.mark.rule(7)
@pytest.mark.parametrize(("sigma", "rate", "count"), [(0.1, 1.0, 1), (0.13, 1e-3, 5_000)])
def test_the_end_of_the_noise_is_in_delta(sigma: float, rate: float, count: int) -> None:
    """No epsilon covers a sum that only a drawn record explains, so no delta may be below that."""
    beyond = rate * count * outside(1 / sigma)
    (delta,) = pld.profile([(sigma, rate, count)], [100.0])
    assert delta >= beyond * (1 - 1e-9)
    with pytest.raises(PlanError, match="too small for delta"):
        pld.epsilon(sigma, rate, count, beyond / 2)
    assert pld.epsilon(sigma, rate, count, 10 * beyond) > 0


@pytest.mark.rule(9)
def test_a_target_that_short_noise_would_miss_gets_more_of_it() -> None:
    sigma = pld.noise_multiplier(90.0, 1e-12, 1.0, 1)
    assert outside(1 / sigma) <= 0.5e-12
    assert pld.epsilon(sigma, 1.0, 1, 1e-12) <= 90.0


@pytest.mark.rule(7, 8, 13)
def test_the_renyi_bound_has_what_noise_and_overflow_leave_of_delta() -> None:
    """It is the figure where a million draws leave the FFT nothing of a small δ."""
    sigma, rate, count, delta = 20.0, 1e-3, 10**6, 4e-10
    assert pld._slack([(sigma, rate, count)]) > delta / 2
    usable = delta - draws.overflow_delta(delta) - pld._tail([(sigma, rate, count)])
    found = pld.epsilon(sigma, rate, count, delta)
    assert found >= rdp.epsilon(sigma, rate, count, usable) > rdp.epsilon(sigma, rate, count, delta)
