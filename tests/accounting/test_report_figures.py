"""The report's figures against closed forms, brute force and each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm

from dtjob_accounting import draws, pld, rdp, report_figures

pytestmark = pytest.mark.slow

DIGITS = [(2.203, draws.sample_rate(256, 1437), 366)]


def gaussian_profile(mu: float) -> list[tuple[float, float]]:
    """δ(ε) of a Gaussian with shift mu, exactly: Balle and Wang 2018, theorem 8."""
    e = np.linspace(0, 30, 12_001)
    delta = norm.cdf(mu / 2 - e / mu) - np.exp(e) * norm.cdf(-mu / 2 - e / mu)
    return list(zip(e.tolist(), delta.tolist(), strict=True))


@pytest.mark.rule(23)
@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("false_positive_rate", [0.001, 0.01, 0.3])
def test_attack_rate_of_a_gaussian_is_its_trade_off_curve(
    mu: float, false_positive_rate: float
) -> None:
    """The best test between N(0,1) and N(μ,1): Neyman and Pearson, in closed form."""
    exact = norm.cdf(norm.ppf(false_positive_rate) + mu)
    bound = report_figures.attack_true_positive_rate(gaussian_profile(mu), false_positive_rate)
    assert exact <= bound <= exact * 1.002 + 1e-4


@pytest.mark.rule(23)
def test_attack_rate_of_one_point_is_the_known_bound() -> None:
    """Kairouz, Oh, Viswanath 2015 at ε = 1, δ = 0.01: both branches."""
    assert report_figures.attack_true_positive_rate([(1.0, 0.01)], 0.01) == pytest.approx(
        math.e * 0.01 + 0.01, abs=1e-4
    )
    assert report_figures.attack_true_positive_rate([(1.0, 0.01)], 0.7) == pytest.approx(
        1 - (1 - 0.01 - 0.7) / math.e, abs=1e-4
    )
    assert report_figures.attack_true_positive_rate([], 0.01) == 1.0


@pytest.mark.rule(23)
def test_no_attack_on_the_draws_beats_the_reported_rate() -> None:
    """Play the attack: likelihood-ratio test on 366 subsampled Gaussians, the worst pair.

    20,000 games each; the standard error of the rate is 0.003, of the threshold's false-positive
    rate 0.0007, which moves the rate by 0.006. The bound may be missed by 5 of these: 1e-6.
    """
    sigma, q, count = DIGITS[0]
    rng = np.random.default_rng(7)
    games = 20_000

    def log_ratio(with_record: bool) -> np.ndarray:
        total = np.zeros(games)
        for _ in range(count):
            drawn = (rng.random(games) < q) if with_record else np.zeros(games, dtype=bool)
            seen = drawn + sigma * rng.standard_normal(games)
            total += np.log1p(q * np.expm1((2 * seen - 1) / (2 * sigma**2)))
        return total

    threshold = np.quantile(log_ratio(False), 1 - report_figures.FALSE_POSITIVE_RATE)
    played = float(np.mean(log_ratio(True) > threshold))
    bound = report_figures.figures(DIGITS, 1e-5, pld, group_sizes=()).attack_tpr
    assert bound - 0.05 < played < bound + 0.033


@pytest.mark.rule(23)
def test_replace_one_by_brute_force() -> None:
    """Every pair of events: a removal and an addition by randomised response at ε, δ."""
    epsilon, delta = 0.7, 0.02
    target = (1 + math.exp(epsilon)) * delta
    bound = report_figures.replace_one_epsilon([(epsilon, delta)], target * (1 + 1e-12))
    assert bound == pytest.approx(2 * epsilon)
    assert report_figures.replace_one_epsilon([(epsilon, delta)], target * 0.99) == math.inf
    # Three distributions on three points, each neighbouring pair (ε, δ)-close.
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(10_000):
        left, middle, right = rng.dirichlet([2, 2, 2], size=3)
        if max(hockey_stick(left, middle, epsilon), hockey_stick(middle, right, epsilon)) <= delta:
            found += 1
            assert hockey_stick(left, right, bound) <= target
    assert found > 25


def hockey_stick(upper: np.ndarray, lower: np.ndarray, epsilon: float) -> float:
    """δ(ε) between two distributions on few points: the best of all events."""
    return max(
        float(sum(upper[i] - math.exp(epsilon) * lower[i] for i in event))
        for size in range(4)
        for event in itertools.combinations(range(3), size)
    )


@pytest.mark.rule(23)
def test_replace_one_is_above_the_true_replacement_without_sampling() -> None:
    """With q = 1 exchanging a record is a Gaussian shift of 2: its ε is known exactly."""
    delta = 1e-5
    mu = 2 * math.sqrt(100) / 20.0
    exact = next(e for e, d in gaussian_profile(mu) if d <= delta)
    bound = report_figures.figures(
        [(20.0, 1.0, 100)], delta, pld, group_sizes=()
    ).replace_one_epsilon
    assert exact <= bound <= 1.25 * exact


@pytest.mark.rule(23)
@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_groups_without_sampling_are_a_wider_gaussian(group_size: int) -> None:
    delta = 1e-5
    exact = next(e for e, d in gaussian_profile(group_size * 0.5) if d <= delta)
    ours = pld.group_epsilon([(20.0, 1.0, 100)], delta, group_size)
    assert exact * (1 - 1e-3) <= ours <= exact * 1.005


@pytest.mark.rule(23)
def test_groups_of_one_step_by_numerical_integration() -> None:
    """δ of one step at the reported ε: mixture of k+1 Gaussians against one, both directions."""
    sigma, q, size, delta = 1.5, 0.1, 3, 1e-4
    epsilon = pld.group_epsilon([(sigma, q, 1)], delta, size)
    x = np.linspace(-20, 25, 400_001)
    without = norm.pdf(x, scale=sigma)
    with_group = sum(binom.pmf(k, size, q) * norm.pdf(x - k, scale=sigma) for k in range(size + 1))

    def integrated(e: float) -> float:
        return max(
            float(np.trapezoid(np.maximum(upper - math.exp(e) * lower, 0), x))
            for upper, lower in ((with_group, without), (without, with_group))
        )

    assert integrated(epsilon) <= delta
    assert integrated(epsilon * 0.99) > delta


@pytest.mark.rule(23)
def test_a_group_costs_more_than_one_and_less_than_generic_group_privacy() -> None:
    figures = report_figures.figures(DIGITS, 1e-5, pld)
    one = pld.epsilon(*DIGITS[0], 1e-5)
    assert pld.group_epsilon(DIGITS, 1e-5, 1) == pytest.approx(one, rel=1e-6)
    two, five = figures.group_epsilon[2], figures.group_epsilon[5]
    assert one < two < five
    # Two removals after each other are as far apart as a removal and an addition.
    assert two < figures.replace_one_epsilon


@pytest.mark.rule(23)
def test_a_group_without_any_protection_says_so() -> None:
    assert pld.group_epsilon([(1.0, 1.0, 100)], 1e-5, 50) == math.inf


@pytest.mark.rule(8, 23)
def test_overflow_is_in_delta() -> None:
    """A hundredth of δ is left to draws that overflow their slots, in every figure."""
    left = 0.99e-5
    composed = pld._composed(DIGITS)
    assert pld.epsilon(*DIGITS[0], 1e-5) >= composed.get_epsilon_for_delta(left)
    # A δ below the error of the composition: the Rényi bound alone.
    assert pld.epsilon(1000.0, 1e-3, 10**6, 1e-11) >= rdp.epsilon(1000.0, 1e-3, 10**6, 0.99e-11)
    pair = pld._composed(DIGITS, 2).get_epsilon_for_delta(left)
    figures = report_figures.figures(DIGITS, 1e-5, pld)
    assert figures.group_epsilon[2] >= pair

    profile = list(
        zip(report_figures._EPSILONS, pld.profile(DIGITS, report_figures._EPSILONS), strict=True)
    )
    attack = report_figures.attack_true_positive_rate(profile, 0.01)
    large = report_figures.figures(DIGITS, 0.1, pld, group_sizes=())
    assert large.attack_tpr >= attack + 0.0009


@pytest.mark.rule(8, 23)
@pytest.mark.parametrize(("share", "epsilon"), [(0.9899, 0.0), (0.9901, math.inf)])
def test_overflow_is_in_delta_once_where_a_record_is_exchanged(
    share: float, epsilon: float
) -> None:
    class Accountant:
        """Of a profile that takes this share of δ at every ε."""

        def profile(self, _segments: Any, epsilons: Any) -> list[float]:
            return [share * 1e-5 / (1 + math.exp(min(e, 700.0))) for e in epsilons]

        def group_epsilon(self, *_: Any) -> float:
            raise NotImplementedError

    figures = report_figures.figures(DIGITS, 1e-5, Accountant(), group_sizes=())
    assert figures.replace_one_epsilon == epsilon


@pytest.mark.rule(23)
def test_the_digits_report() -> None:
    figures = report_figures.figures(DIGITS, 1e-5, pld)
    assert figures.attack_tpr == pytest.approx(0.237, abs=0.002)
    assert figures.replace_one_epsilon == pytest.approx(24.24, abs=0.1)
    assert figures.group_epsilon[2] == pytest.approx(19.11, abs=0.05)
