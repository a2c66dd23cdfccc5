"""Rule 7: noise on a lattice.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the key,
which is fixed.
"""

import math

import numpy as np
import pytest
from scipy import stats

from dtjob_trainer.mechanism import noise
from dtjob_trainer.mechanism.noise import Lattice
from dtjob_trainer.mechanism.normals import box_muller
from tests.support.mechanism import reference

KEY = bytes(range(32))
ALARM = 1e-6
COUNT = 1_000_000


def two_sided(z):
    return 2 * stats.norm.sf(abs(z))


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
def test_every_chunk_has_noise_of_its_own(monkeypatch):
    lattice = Lattice(1.0, 1.0, 11)
    whole = lattice.noised(np.zeros(11), KEY, 4, 3)
    assert len(set(whole)) == 11
    monkeypatch.setattr(noise, "_CHUNK", 4)
    assert np.array_equal(lattice.noised(np.zeros(11), KEY, 4, 3), whole)


@pytest.mark.slow
@pytest.mark.rule(6, 7)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_draw_has_noise_of_its_own_whatever_the_slice(count):
    lattice = Lattice(1.0, 1.0, count)
    charges = [*range(5000), *(2**bits + 7 for bits in range(13, 64))]
    noised = [lattice.noised(np.zeros(count), KEY, charge, 0) for charge in charges]
    assert np.all(np.array(noised) != 0)
    assert len({found.tobytes() for found in noised}) == len(charges)


def _near_zero(words, count):
    """Normals of radii below √(2·words)·2⁻³², evenly over the disc (a Fibonacci lattice)."""
    index = np.arange(count)
    to_the_end = (index + 0.5) / count * words
    s = (to_the_end % 1 * 2.0**64).astype(np.uint64)
    v = (index * ((math.sqrt(5) - 1) / 2) % 1 * 2.0**64).astype(np.uint64)
    stream = np.stack([~to_the_end.astype(np.uint64), v], axis=1)
    return box_muller(stream, index, np.stack([s, np.zeros_like(s)], axis=1))


@pytest.mark.rule(7)
@pytest.mark.parametrize("sigma", [1.0, math.nextafter(2.0, 0.0)])
def test_cells_near_zero_have_their_mass(monkeypatch, sigma):
    """Of a pair, within 1 %, at both ends of the octave over which a cell is 2⁻³⁰ to 2⁻³¹ σC."""
    count = 121_393
    lattice = Lattice(sigma, 1.0, 2 * count)
    side = lattice.grid / lattice.scale
    words = math.ceil(3.5**2 * (side * 2.0**32) ** 2)  # enough for three cells on each side of 0
    normals = _near_zero(words, count).reshape(-1)
    monkeypatch.setattr(noise, "gaussian", lambda *_: normals)
    cells = lattice.noised(np.zeros(2 * count), KEY, 0, 0).reshape(-1, 2) / lattice.grid
    found, _, _ = np.histogram2d(cells[:, 0], cells[:, 1], bins=np.arange(-3.5, 4.0))
    expected = count * side**2 / (math.pi * 2 * words * 2.0**-64)
    assert np.abs(found / expected - 1).max() < 0.01


@pytest.mark.rule(7)
def test_a_tie_goes_up_whether_cells_are_even_or_odd(monkeypatch):
    lattice = Lattice(1.0, 1.0, 6)
    ties = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]) * lattice.grid
    monkeypatch.setattr(noise, "gaussian", lambda *_: ties)
    cells = lattice.noised(np.zeros(6), KEY, 0, 0) / lattice.grid
    assert cells.tolist() == [-2, -1, 0, 1, 2, 3]


@pytest.mark.rule(7)
@pytest.mark.parametrize("sigma", [2.0**-20, 1.0, 1.999, 2.0**18])
def test_a_sum_beyond_the_exact_range_is_noised_where_it_ends(sigma):
    """An error would tell of the data. Each coordinate is moved by itself."""
    lattice = Lattice(sigma, 1.0, 8)
    end = (2.0**52 - 1) * lattice.grid
    total = np.array([math.nan, math.inf, -math.inf, 1.5e308, -2 * end, end, 0.0, -3.25])
    moved = np.array([0.0, end, -end, end, -end, end, 0.0, -3.25])
    with np.errstate(all="raise"):
        noised = lattice.noised(total, KEY, 4, 0) / lattice.grid
    alone = lattice.noised(np.zeros(8), KEY, 4, 0) / lattice.grid
    exact = [int(z) + round(m / lattice.grid) for z, m in zip(alone, moved, strict=True)]
    assert [int(cell) for cell in noised] == exact
    assert np.array_equal(noised, np.rint(noised))


@pytest.mark.rule(7)
def test_neighbours_come_no_further_apart_at_the_end_of_the_range():
    lattice = Lattice(1.0, 1.0, 1000)
    end, cell = 2.0**52 * lattice.grid, lattice.grid
    generator = np.random.default_rng(0)
    total = generator.choice([-end, end, 0.0], 1000) + generator.normal(0, 1, 1000)
    neighbour = total + generator.normal(0, 1, 1000)
    one, other = (lattice.noised(t, KEY, 4, 0) for t in (total, neighbour))
    assert np.all(np.abs(one - other) <= np.abs(total - neighbour) + cell)


@pytest.mark.rule(6)
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), 1e-13])
def test_there_is_no_lattice_without_noise(sigma):
    with pytest.raises(ValueError, match="noise_multiplier"):
        Lattice(sigma, 1.0, 10)
    with pytest.raises(ValueError, match="max_grad_norm"):
        Lattice(1.0, sigma, 10)
