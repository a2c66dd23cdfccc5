"""From trials to a lower bound of ε that holds but for a stated chance.

On a first part of the trials a statistic and its threshold are chosen. The rates of both errors on
the others are counts of independent trials, and are bounded by Clopper and Pearson (1934). No test
on a mechanism of Gaussian DP with μ does better than Φ⁻¹(TPR) − Φ⁻¹(FPR) = μ (Dong, Roth and Su,
"Gaussian Differential Privacy", 2022, theorem 2.7), so these bounds give one of μ, and that one of
ε at any δ: far more than (TPR − δ)/FPR, of which a number of trials bounds the logarithm (Nasr et
al., "Tight Auditing of Differentially Private Machine Learning", 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from tests.support.attack.scenes import Floats, Scene
from tests.support.attack.trials import Trials

DELTA = 1e-5
_TRAINED = 0.25


@dataclass(frozen=True)
class Reading:
    """What an attack reads.

    Attributes
    ----------
    mu
        A lower bound of μ: what the noise of one draw hides by, 1/σ of it where it is sound. Of
        all draws of a trial, where every record is drawn.
    claimed_mu
        What is claimed.
    sample_rate
        q, as stated.
    sensitivity
        Of `knowing`: the most that x moved a sum without noise, in units of C.
    seen_sensitivity
        Of `knowing`: how far apart the means of noised releases were, in units of C, along the
        direction in which the sums of each draw differ; with its standard error.
    """

    mu: float
    claimed_mu: float
    sample_rate: float
    sensitivity: float
    seen_sensitivity: tuple[float, float]

    @property
    def within(self) -> bool:
        """Whether it is no more than is claimed."""
        return self.mu <= self.claimed_mu

    @property
    def epsilon(self) -> float:
        """The lower bound of ε at `DELTA`."""
        return epsilon_of(self.mu, self.sample_rate, DELTA)

    @property
    def claimed_epsilon(self) -> float:
        """What is claimed of a trial, at `DELTA`."""
        return epsilon_of(self.claimed_mu, self.sample_rate, DELTA)


def read(scene: Scene, trials: Trials, alarm: float) -> Reading:
    """Read trials; for a sound step the result exceeds what is claimed with chance `alarm`."""
    assert scene.draws == 1 or scene.sample_rate == 1, "no formula here has both"
    trained = int(_TRAINED * len(trials.without))
    column, threshold = max(
        ((c, t) for c in range(trials.without.shape[1]) for t in _thresholds(trials, c, trained)),
        key=lambda by: _worth(scene, trials, by, slice(trained)),
    )
    rates = _rates(trials, (column, threshold), slice(trained, None), alarm)
    mu = least_mu(*rates, scene.sample_rate)
    claimed = math.sqrt(scene.draws) / scene.noise_multiplier
    return Reading(
        mu, claimed, scene.sample_rate, max(trials.moved, default=math.nan), _apart(trials)
    )


def _apart(trials: Trials) -> tuple[float, float]:
    if not trials.along.size:
        return math.nan, math.nan
    without, with_x = trials.along
    error = math.sqrt((without.var() + with_x.var()) / len(without))
    return float(with_x.mean() - without.mean()), error


def _thresholds(trials: Trials, column: int, trained: int) -> Floats:
    """Halfway between neighbouring statistics, 64 of them evenly."""
    seen = np.concatenate([trials.without[:trained, column], trials.with_x[:trained, column]])
    seen = np.unique(seen)
    if len(seen) < 2:
        return seen
    between = (seen[1:] + seen[:-1]) / 2
    at = np.unique(np.linspace(0, len(between) - 1, 64).astype(int))
    widest = between[np.argmax(np.diff(seen))]
    return np.append(between[at], widest)


def _worth(scene: Scene, trials: Trials, by: tuple[int, float], part: slice) -> tuple[float, float]:
    """How good a test seems: by μ, and where that has no bound by its rates."""
    false, true = _rates(trials, by, part, 0.05)
    return least_mu(false, true, scene.sample_rate), true - false


def _rates(trials: Trials, by: tuple[int, float], part: slice, alarm: float) -> tuple[float, float]:
    """Bounds of the rates of false and of true positives, on the side of caution."""
    column, threshold = by
    false = trials.without[part, column] > threshold
    true = trials.with_x[part, column] > threshold
    return (
        most_rate(int(false.sum()), len(false), alarm / 2),
        least_rate(int(true.sum()), len(true), alarm / 2),
    )


def most_rate(found: int, trials: int, alarm: float) -> float:
    """Upper bound of a rate of which `found` were seen; false with chance `alarm` at most."""
    return 1.0 if found == trials else float(stats.beta.ppf(1 - alarm, found + 1, trials - found))


def least_rate(found: int, trials: int, alarm: float) -> float:
    """Lower bound of a rate of which `found` were seen; false with chance `alarm` at most."""
    return 1 - most_rate(trials - found, trials, alarm)


def least_mu(false_positives: float, true_positives: float, sample_rate: float) -> float:
    """The least μ by which a test may have such rates, where a record is drawn with rate q.

    Its releases are N(0, 1) without the record, and (1 − q)N(0, 1) + qN(μ, 1) with it. By Neyman
    and Pearson none has TPR above (1 − q)·FPR + q·Φ(Φ⁻¹(FPR) + μ). Infinite where no μ allows it.
    """
    where_drawn = (true_positives - (1 - sample_rate) * false_positives) / sample_rate
    if where_drawn <= 0 or false_positives >= 1:
        return 0.0
    if where_drawn >= 1:
        return math.inf
    return max(0.0, float(stats.norm.ppf(where_drawn) - stats.norm.ppf(false_positives)))


def epsilon_of(mu: float, sample_rate: float, delta: float) -> float:
    """The ε at δ of one release as in `least_mu`, exactly (Balle and Wang 2018, theorem 8).

    Of the direction in which the record is added, which is the worse one for ε > 0: with γ =
    1 + (e^ε − 1)/q, δ is q·(Φ(μ/2 − ln γ/μ) − γΦ(−μ/2 − ln γ/μ)).
    """
    if mu == 0 or math.isinf(mu):
        return mu

    def excess(epsilon: float) -> float:
        # ln γ, which an ε of hundreds would overflow.
        log = epsilon + math.log(math.exp(-epsilon) + -math.expm1(-epsilon) / sample_rate)
        first = stats.norm.cdf(mu / 2 - log / mu)
        second = math.exp(log + stats.norm.logcdf(-mu / 2 - log / mu))
        return float(sample_rate * (first - second) - delta)

    if excess(0.0) <= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, mu**2 / 2 + 10 * mu + 10))
