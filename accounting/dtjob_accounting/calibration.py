"""The least noise whose ε stays within a target, in as few compositions as can be.

A composition takes from 0.02 s to half a second. ε falls with σ, and its logarithm is nearly
straight over that of σ: from a guess within a tenth a secant is there in three or four, where a
bracketed search takes eight. Whichever way σ was found, its own ε is within the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize

from dtjob_accounting.rounding import round_up

EPSILON_DIGITS = 6
NOISE_MULTIPLIER_DIGITS = 5
_MOST_STEPS = 9
# By how much of itself σ may move at a step: the guess may be far off, and its slope with it.
_LONGEST_STEP = 0.2
# Two points that are closer than this tell more of rounding than of the slope.
_NEAR = 1e-4
# Stands in for an infinite ε where a root is sought.
_HUGE = 1e6

Epsilon = Callable[[float], float]
"""ε of a σ before rounding; infinite where there is none."""


def least_noise(
    epsilon: Epsilon, target: float, *, guess: float, slope: float, least: float, most: float
) -> float | None:
    """Return the least σ of 5 digits whose ε, rounded up, is within the target, found within 1e-5.

    Parameters
    ----------
    guess
        A σ near it, at least `least`.
    slope
        How steeply ln ε falls over ln σ at the guess; below 0.
    least, most
        Between which σ is sought.

    Returns
    -------
    float or None
        None where no σ up to `most` is enough.
    """
    found = _by_secant(epsilon, target, guess, slope, least, most)
    return _by_bracket(epsilon, target, guess, least, most) if found is None else found


def is_within(epsilon: float, target: float) -> bool:
    """Whether an ε that is shown rounded up is within a target."""
    return round_up(epsilon, EPSILON_DIGITS) <= target


def _by_secant(
    epsilon: Epsilon, target: float, guess: float, slope: float, least: float, most: float
) -> float | None:
    """Return the least σ; None where the way there is not as straight as it should be."""
    sigma, before = round_up(max(guess, least), NOISE_MULTIPLIER_DIGITS), None
    too_small, enough = 0.0, math.inf
    for _ in range(_MOST_STEPS):
        bound = epsilon(sigma)
        if not 0 < bound < math.inf:
            return None
        point = math.log(sigma), math.log(bound / target)
        if before is not None and abs(point[0] - before[0]) > _NEAR:
            slope = (point[1] - before[1]) / (point[0] - before[0])
        if not slope < 0:
            return None
        before = point
        step = max(-_LONGEST_STEP, min(-point[1] / slope, _LONGEST_STEP))
        root = math.exp(point[0] + step)
        following = round_up(min(max(root, least), most), NOISE_MULTIPLIER_DIGITS)
        if is_within(bound, target):
            enough = min(enough, sigma)
            if following >= sigma:
                return enough  # what is a digit smaller lies below the root
        else:
            too_small = max(too_small, sigma)
        lowest = _next_up(too_small) if too_small else following
        if lowest >= enough:
            return enough
        if lowest > most:
            return None
        sigma = max(following, lowest)
        if sigma >= enough:  # the secant leads out of where the root is known to be
            sigma = _between(too_small, enough)
    return None


def _by_bracket(
    epsilon: Epsilon, target: float, guess: float, least: float, most: float
) -> float | None:
    """Return the least σ by a bracket around the guess that is widened until it holds the root."""

    def excess(sigma: float) -> float:
        return min(_HUGE, epsilon(sigma)) - target

    high = max(1.1 * guess, least)
    while excess(high) > 0 and high < most:
        high = min(1.5 * high, most)
    if excess(high) > 0:
        return None
    low = max(0.85 * high, least)
    if excess(low) <= 0:
        low, high = least, low
    sigma = low
    if excess(low) > 0:
        sigma = optimize.brentq(excess, low, high, xtol=5e-6 * high, rtol=1e-12)
    sigma = round_up(sigma, NOISE_MULTIPLIER_DIGITS)
    while not is_within(epsilon(sigma), target):
        sigma = _next_up(sigma)
    return sigma


def _between(low: float, high: float) -> float:
    """A σ of 5 digits in the middle of two between which there is one."""
    middle = (low + high) / 2
    while (sigma := round_up(middle, NOISE_MULTIPLIER_DIGITS)) >= high:
        middle = (low + middle) / 2  # above a power of ten digits are ten times as far apart
    return sigma


def _next_up(sigma: float) -> float:
    return round_up(math.nextafter(sigma, math.inf), NOISE_MULTIPLIER_DIGITS)
