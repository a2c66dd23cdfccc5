"""Rule 7: lattice noise from AES.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the key,
which is fixed.
"""

import math

import numpy as np
import pytest
from scipy import stats

from dtjob_accounting import pld
from dtjob_trainer.mechanism import noise
from dtjob_trainer.mechanism.noise import Lattice, gaussian
from tests.support.mechanism import reference

KEY = bytes(range(32))
ALARM = 1e-6
COUNT = 1_000_000


@pytest.fixture(scope="module")
def normals() -> np.ndarray:
    return gaussian(KEY, 9, 0, COUNT)


def two_sided(z):
    return 2 * stats.norm.sf(abs(z))


@pytest.mark.rule(7)
def test_normals_are_those_of_the_format():
    expected = [reference.normal(KEY, 3, i) for i in range(1000)]
    assert np.allclose(gaussian(KEY, 3, 0, 1000), expected, rtol=1e-13, atol=1e-14)
    # Computed by the reference: AES block by block, Box-Muller with the math module.
    assert gaussian(KEY, 0, 0, 3) == pytest.approx(
        [-0.6397276225832937, -0.007310187168550739, 0.0318637331585755], rel=1e-14
    )


@pytest.mark.rule(6)
def test_a_slice_equals_the_slice_of_the_whole_bit_for_bit(normals):
    generator = np.random.default_rng(0)
    for start in [0, 1, 2, 7, *generator.integers(0, COUNT - 5000, 40).tolist()]:
        count = int(generator.integers(0, 5000))
        assert np.array_equal(gaussian(KEY, 9, start, count), normals[start : start + count])


@pytest.mark.rule(7)
def test_moments(normals):
    n = COUNT
    assert two_sided(normals.mean() * math.sqrt(n)) > ALARM
    assert two_sided((normals.var() - 1) / math.sqrt(2 / n)) > ALARM
    assert two_sided(stats.skew(normals) / math.sqrt(6 / n)) > ALARM
    assert two_sided(stats.kurtosis(normals) / math.sqrt(24 / n)) > ALARM


@pytest.mark.rule(7)
def test_distribution(normals):
    assert stats.kstest(normals, "norm").pvalue > ALARM
    for part in (normals[0::2], normals[1::2]):
        assert stats.kstest(part, "norm").pvalue > ALARM


@pytest.mark.rule(7)
@pytest.mark.parametrize("beyond", [3.0, 4.0, 4.5])
def test_tails(normals, beyond):
    found = int((np.abs(normals) > beyond).sum())
    assert stats.binomtest(found, COUNT, 2 * stats.norm.sf(beyond)).pvalue > ALARM


@pytest.mark.rule(7)
@pytest.mark.parametrize("first", [0, 1, 5, 2**20, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1])
@pytest.mark.parametrize("second", [0, 2**63, 2**64 - 1])
def test_the_rare_ends_of_the_noise_are_filled_in(monkeypatch, first, second):
    """Words that no test would meet by chance: below 2³² a second word decides."""

    def words(_key, _draw, start, count):
        given = {6: first, 7: 12345, 2**64 + 3: second}
        return np.array([given.get(start + i, 2**63) for i in range(count)], np.uint64)

    monkeypatch.setattr(noise, "words", words)
    found = gaussian(KEY, 0, 2, 8)
    expected = [reference.from_words(first, 12345, second, odd) for odd in (0, 1)]
    assert found[4:6] == pytest.approx(expected, rel=1e-13, abs=1e-13)
    assert np.array_equal(gaussian(KEY, 0, 7, 1), found[5:6])


@pytest.mark.rule(7)
def test_the_longest_noise_is_the_one_that_is_accounted_for(monkeypatch):
    monkeypatch.setattr(noise, "words", lambda *_: np.zeros(_[3], np.uint64))
    longest = gaussian(KEY, 0, 0, 2).max()
    assert longest == pytest.approx(math.sqrt(2 * 129 * math.log(2)), rel=1e-12)
    assert longest >= pld._LONGEST_NOISE


@pytest.mark.rule(7)
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_coordinates_are_uncorrelated(normals, lag):
    for values in (normals, normals**2 - 1):
        product = (values[:-lag] * values[lag:]).mean() / values.var()
        assert two_sided(product * math.sqrt(COUNT)) > ALARM


@pytest.mark.rule(7)
def test_draws_and_keys_give_other_noise(normals):
    for other in (gaussian(KEY, 10, 0, COUNT), gaussian(bytes(32), 9, 0, COUNT)):
        assert not np.any(other == normals)
        assert two_sided((other * normals).mean() * math.sqrt(COUNT)) > ALARM


@pytest.mark.rule(7)
@pytest.mark.parametrize(
    ("sigma", "norm", "exponent"),
    [(1.0, 1.0, -30), (2.203, 1.0, -29), (0.999, 1.0, -31), (0.5, 8.0, -28), (3e-3, 1.0, -39)],
)
def test_grid_is_a_power_of_two(sigma, norm, exponent):
    assert Lattice(sigma, norm, 10).grid == 2.0**exponent == reference.grid(sigma, norm)


@pytest.mark.rule(7)
def test_outputs_of_neighbours_share_one_lattice():
    lattice = Lattice(2.203, 1.0, 1000)
    generator = np.random.default_rng(0)
    total = generator.normal(0, 10, 1000).astype(np.float64)
    neighbour = (total + generator.normal(0, 0.03, 1000)).astype(np.float64)
    one, other = (lattice.noised(t, KEY, 4, 0) / lattice.grid for t in (total, neighbour))
    assert np.array_equal(one, np.rint(one))
    assert np.array_equal(other, np.rint(other))
    # The same noise was added to both, exactly.
    assert np.array_equal(
        one - np.rint(total / lattice.grid), other - np.rint(neighbour / lattice.grid)
    )
    expected = reference.noise(KEY, 4, 1000, 2.203, 1.0)
    difference = lattice.noised(np.zeros(1000, np.float64), KEY, 4, 0) - expected
    assert np.abs(difference).max() <= lattice.grid  # an ulp of the math library may round over
    assert (difference == 0).mean() > 0.999


@pytest.mark.rule(7)
def test_rounding_is_half_to_even():
    lattice = Lattice(1.0, 1.0, 4)
    total = (np.array([0.5, 1.5, -0.5, 2.5]) * lattice.grid).astype(np.float64)
    noise = lattice.noised(np.zeros(4, np.float64), KEY, 0, 0)
    units = (lattice.noised(total, KEY, 0, 0) - noise) / lattice.grid
    assert units.tolist() == [0, 2, 0, 2]


@pytest.mark.rule(7)
def test_noise_has_standard_deviation_sigma_c():
    lattice = Lattice(3.0, 0.25, COUNT)
    noise = lattice.noised(np.zeros(COUNT, np.float64), KEY, 1, 0)
    assert two_sided((noise.var() / 0.75**2 - 1) / math.sqrt(2 / COUNT)) > ALARM


@pytest.mark.rule(7)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 2.0**23])
def test_a_sum_outside_the_exact_range_is_refused(bad):
    lattice = Lattice(1.0, 1.0, 2)  # 2**52 * g = 2**22
    with pytest.raises(OverflowError, match="lattice"):
        lattice.noised(np.array([0.0, bad], np.float64), KEY, 0, 0)
    lattice.noised(np.array([0.0, 2.0**21], np.float64), KEY, 0, 0)


@pytest.mark.rule(6)
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), 1e-13])
def test_there_is_no_lattice_without_noise(sigma):
    with pytest.raises(ValueError, match="noise_multiplier"):
        Lattice(sigma, 1.0, 10)
    with pytest.raises(ValueError, match="max_grad_norm"):
        Lattice(1.0, sigma, 10)
