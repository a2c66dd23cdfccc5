"""What is read of trials is a bound: below the truth where it must be, and close to it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dtjob_accounting import pld
from tests.support.attack import reading
from tests.support.attack.trials import Trials

pytestmark = pytest.mark.slow

ALARM = 1e-5
SEED = 5


def trials(of_each, count, apart, rate=1.0):
    """As of a release by N(0, 1) or, with probability q, N(apart, 1)."""
    generator = np.random.default_rng(SEED)
    without, with_x = generator.normal(size=(2, count, 1))
    with_x += apart * (generator.uniform(size=(count, 1)) < rate)
    one, other = (np.hstack([each, of_each * each**2]) for each in (without, with_x))
    return Trials(one, other, np.empty(0), np.empty((2, 0)))


def claim(mu, rate=1.0, draws=1):
    return SimpleNamespace(noise_multiplier=1 / mu, sample_rate=rate, draws=draws)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_a_reading_is_a_close_lower_bound(rate):
    """False with a chance of 1e-5, and the seed is fixed."""
    read = reading.read(claim(3.0, rate), trials(1, 40_000, 3.0, rate), ALARM)
    assert 2.7 < read.mu <= 3.0
    assert read.within
    assert read.epsilon <= read.claimed_epsilon


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_more_than_is_claimed_is_seen(rate):
    read = reading.read(claim(3.0, rate), trials(1, 40_000, 3.6, rate), ALARM)
    assert not read.within
    assert read.epsilon > read.claimed_epsilon


def test_a_record_that_is_drawn_too_often_is_seen():
    assert math.isinf(reading.read(claim(3.0, 0.25), trials(1, 4_000, 4.0, 0.5), ALARM).epsilon)


def test_a_statistic_that_tells_nothing_is_not_chosen():
    one, other = (reading.read(claim(3.0), trials(by, 4_000, 3.0), ALARM) for by in (0, 1))
    assert one.mu == pytest.approx(other.mu, abs=0.2)


def test_trials_that_never_fail_tell_no_more_than_their_number_allows():
    read = reading.read(claim(3.0), trials(1, 100, 1e6), ALARM)
    assert read.mu == pytest.approx(2.07, abs=0.01)


@pytest.mark.parametrize(("found", "most"), [(0, 0.0362), (1, 0.0545), (50, 0.6017), (100, 1.0)])
def test_rates_are_bounded_as_by_clopper_and_pearson(found, most):
    """With 95 % on both sides, of 100 trials: their two-sided interval's upper ends."""
    assert reading.most_rate(found, 100, 0.025) == pytest.approx(most, abs=1e-4)
    assert reading.least_rate(100 - found, 100, 0.025) == pytest.approx(1 - most, abs=1e-4)


@pytest.mark.parametrize("rate", [1.0, 0.25, 1e-3])
@pytest.mark.parametrize("mu", [0.5, 3.0])
def test_epsilon_of_one_release_is_that_of_the_accountant(mu, rate):
    """Whose figure is an upper bound, and leaves a hundredth of δ to overflow."""
    exact = reading.epsilon_of(mu, rate, reading.DELTA)
    assert exact <= pld.epsilon(1 / mu, rate, 1, reading.DELTA) <= 1.003 * exact + 2e-3
