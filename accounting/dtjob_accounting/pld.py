"""σ and ε by privacy loss distributions (dp-accounting): pessimistic, rounded up (rule 23).

Poisson-subsampled Gaussian, add/remove adjacency: the larger of both directions. Every figure is
an upper bound:

- dp-accounting's pessimistic estimate (connect the dots: Doroshenko et al., arXiv:2207.04380) at
  a grid fine enough for one step, by `_interval`;
- dp-accounting composes by an FFT, whose T-th power carries the rounding error of double precision
  T times, in either direction: up to 1e-10 of δ at T = 1e6, so that its estimate alone is not an
  upper bound. δ gives up T·2⁻⁵¹ before ε is read off it, four times the largest error seen
  against extended precision;
- δ also gives up what the ends of the noise and draws that overflow their slots may tell;
- where the Rényi bound is smaller (δ near that error, or σ in the hundreds), it is taken;
- the result is rounded up to 6 significant digits.

ε grows with the draws except for these errors, which may exceed what a single draw adds where
draws·2⁻⁵¹ is not far below δ: each figure is a bound, and who shows a sequence keeps its maximum.

Importing this module takes seconds: long-running programs use `process.PldProcess`.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from functools import lru_cache

from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy import special, stats

from dtjob_accounting import calibration, rdp
from dtjob_accounting.calibration import EPSILON_DIGITS
from dtjob_accounting.draws import overflow_delta
from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import (
    MAX_EXPECTED_LOSS,
    MAX_NOISE_MULTIPLIER,
    MIN_NOISE_MULTIPLIER,
    Segment,
    check_segments,
    check_target,
    epsilon_unreachable,
    noise_too_short,
)
from dtjob_accounting.rounding import round_up

_COARSEST, _FINEST = 1e-3, 1e-6
_MAX_GRID_POINTS = 5e4
_FFT_ERROR = 2.0**-51
NOISE_REACH = 14.89
"""Up to so many σ a pair of coordinates has noise on every cell of its lattice (Rule 7): that of
Box and Muller from 192 bits, as far as 32 of them are left to tell radii apart."""
# σ beside the Rényi one: most jobs' lies within a tenth of it.
_TYPICAL = 0.92
# Between two σ that show how steeply the Rényi ε falls.
_STEP = 1.01


def version() -> str:
    """Return name and version of the library, as the ledger records it (rule 14)."""
    return f"dp-accounting {importlib.metadata.version('dp-accounting')}"


def epsilon(noise_multiplier: float, sample_rate: float, draws: int, delta: float) -> float:
    """Return an upper bound of ε after `draws` draws at (σ, q).

    Raises
    ------
    PlanError
        When an argument lies outside what is supported (`limits.check_mechanism`).
    """
    return epsilon_of_segments([(noise_multiplier, sample_rate, draws)], delta)


def epsilon_of_segments(segments: Sequence[Segment], delta: float) -> float:
    """Return an upper bound of ε after all segments (σ, q, draws), in any order (rule 13).

    Raises
    ------
    PlanError
        When an argument lies outside what is supported.
    """
    check_segments(segments, delta)
    bound = _epsilon(tuple((sigma, q, draws) for sigma, q, draws in segments), delta)
    if math.isinf(bound):
        raise noise_too_short(min(sigma for sigma, _, _ in segments), delta)
    return round_up(bound, EPSILON_DIGITS)


def noise_multiplier(epsilon: float, delta: float, sample_rate: float, draws: int) -> float:
    """Return the least σ of 5 digits, found within 1e-5, whose `epsilon` is within the target.

    The Rényi σ is where the search begins: the answer is 6 to 16 % below it in all but extreme
    cases. `epsilon` itself decides: what is returned satisfies `epsilon(σ, q, draws, δ) <= target`
    as computed. Never below 0.1, even where δ >= q·draws would admit no noise at all.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported or no supported σ reaches the target.
    """
    check_target(epsilon, delta, sample_rate, draws)
    floor = max(
        MIN_NOISE_MULTIPLIER, 1.0001 * math.sqrt(sample_rate * draws / (2 * MAX_EXPECTED_LOSS))
    )
    guess = max(floor, _TYPICAL * _rdp_noise_multiplier(epsilon, delta, sample_rate, draws))

    def renyi(sigma: float) -> float:
        return rdp.least_epsilon([(sigma, sample_rate, draws)], delta)

    found = calibration.least_noise(
        lambda sigma: _epsilon(((sigma, sample_rate, draws),), delta),
        epsilon,
        guess=guess,
        slope=math.log(renyi(_STEP * guess) / renyi(guess)) / math.log(_STEP),
        least=floor,
        most=MAX_NOISE_MULTIPLIER,
    )
    if found is None:
        raise epsilon_unreachable(epsilon, delta, sample_rate, draws)
    return found


def profile(segments: Sequence[Segment], epsilons: Sequence[float]) -> list[float]:
    """Return upper bounds of δ(ε) after all segments, for each ε >= 0 in ascending order.

    Of draws that have room for all their records: what overflow costs is a part of the δ of the
    job, which this doesn't know (`draws.overflow_delta`).

    Raises
    ------
    PlanError
        When a segment lies outside what is supported.
    """
    check_segments(segments)
    slack = _slack(segments) + _tail(segments)
    deltas = _composed(segments).get_delta_for_epsilon(list(epsilons))
    return [min(1.0, max(0.0, float(delta)) + slack) for delta in deltas]


def group_epsilon(segments: Sequence[Segment], delta: float, group_size: int) -> float:
    """Return an upper bound of ε for `group_size` records added or removed together.

    The number of them that a draw takes is Binomial(k, q), and their clipped gradients add up to
    at most that times C: a mixture of Gaussians with these shifts dominates the step. Ganesh,
    "Tight Group-Level DP Guarantees for DP-SGD with Sampling via Mixture of Gaussians Mechanisms"
    (arXiv:2401.10294), theorem on Poisson sampling. Infinite where the figure would mean nothing.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported.
    """
    check_segments(segments, delta)
    expected_loss = sum(
        draws * group_size * q * (1 + (group_size - 1) * q) / (2 * sigma**2)
        for sigma, q, draws in segments
    )
    usable = delta - overflow_delta(delta) - _slack(segments) - _tail(segments, group_size)
    if expected_loss > MAX_EXPECTED_LOSS or usable < delta / 2:
        return math.inf
    composed = _composed(segments, group_size)
    return round_up(composed.get_epsilon_for_delta(usable), EPSILON_DIGITS)


@lru_cache(maxsize=256)
def _epsilon(segments: tuple[Segment, ...], delta: float) -> float:
    """Return the smaller of both upper bounds, before rounding; infinite where δ is too small.

    The ε that a plan guarantees is that of the σ at which its search ended.
    """
    delta_left = delta - overflow_delta(delta) - _tail(segments)
    if delta_left < delta / 2:
        return math.inf
    bound = rdp.least_epsilon(segments, delta_left)
    usable = delta_left - _slack(segments)
    if usable < delta / 2 or not any(draws for _, _, draws in segments):
        return bound
    return min(bound, float(_composed(segments).get_epsilon_for_delta(usable)))


def _slack(segments: Sequence[Segment]) -> float:
    return sum(draws for _, _, draws in segments) * _FFT_ERROR


def _tail(segments: Sequence[Segment], group_size: int = 1) -> float:
    """Return the δ of sums that noise does not reach without the record, or the group.

    Such a sum may tell for certain that the record was drawn; both accountants know Gaussian noise
    without an end. Noise comes in pairs of coordinates and ends on a circle: the δ is largest where
    the record's gradient lies in one pair, since the chance of staying within the circle is
    log-concave in the square of the shift.
    """
    return sum(
        draws
        * math.comb(group_size, drawn)
        * q**drawn
        * (1 - q) ** (group_size - drawn)
        * _outside(drawn / sigma)
        for sigma, q, draws in segments
        for drawn in range(1, group_size + 1)
    )


def _outside(shift: float) -> float:
    """Return an upper bound of the chance that a shifted pair of normals lies beyond the reach.

    That is Marcum's Q₁(a, R) = ∫ x·exp(−(x − a)²/2)·I₀(ax)e^(−ax) dx from R, here with the last
    two factors as at x = R: they fall with x. It is at most 1 % more, for shifts up to 10.
    """
    beyond = NOISE_REACH - shift
    line = math.exp(-(beyond**2) / 2) + shift * math.sqrt(math.pi / 2) * math.erfc(
        beyond / math.sqrt(2)
    )
    return min(1.0, float(special.i0e(shift * NOISE_REACH)) * line)


def _composed(segments: Sequence[Segment], group_size: int = 1) -> PrivacyLossDistribution:
    # Losses of a group are wider by its size, and so may be their grid.
    interval = group_size * min(_interval(sigma, q) for sigma, q, _ in segments)
    total = None
    for sigma, q, draws in segments:
        if draws == 0:
            continue
        part = _step(sigma, q, interval, group_size).self_compose(draws)
        total = part if total is None else total.compose(part)
    return privacy_loss_distribution.identity(interval) if total is None else total


@lru_cache(maxsize=16)
def _step(sigma: float, q: float, interval: float, group_size: int) -> PrivacyLossDistribution:
    """Return the distribution of one step; a job asks for the same one again and again."""
    if group_size == 1 or q == 1:
        return privacy_loss_distribution.from_gaussian_mechanism(
            sigma,
            sensitivity=group_size,
            sampling_prob=q,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
        )
    drawn = range(group_size + 1)
    return privacy_loss_distribution.from_mixture_gaussian_mechanism(
        sigma,
        sensitivities=list(drawn),
        sampling_probs=list(stats.binom.pmf(drawn, group_size, q)),
        pessimistic_estimate=True,
        value_discretization_interval=interval,
    )


def _interval(sigma: float, q: float) -> float:
    """Return the grid of privacy losses: 1e-3, or finer where one step's losses are smaller.

    A tenth of the standard deviation of one step's loss, q·√(exp(1/σ²) - 1), costs ε about one
    part in a thousand. At most 5e4 points for one step, whose losses reach ln(1 + q·exp(x)) with
    x = 10/σ + 1/2σ². The grid depends on neither draws nor δ; it is continuous and, like ε, falls
    with σ and rises with q, so that it disturbs neither the search nor monotony.
    """
    spread = q * math.sqrt(math.expm1(1 / sigma**2))
    reach = math.log1p(q * math.exp(10 / sigma + 0.5 / sigma**2))
    return min(max(spread / 10, reach / _MAX_GRID_POINTS, _FINEST), _COARSEST)


def _rdp_noise_multiplier(epsilon: float, delta: float, sample_rate: float, draws: int) -> float:
    try:
        return rdp.noise_multiplier(epsilon, delta, sample_rate, draws, accuracy=0.01)
    except PlanError:
        return MAX_NOISE_MULTIPLIER  # the orders end at 1024; the distribution may still reach it
