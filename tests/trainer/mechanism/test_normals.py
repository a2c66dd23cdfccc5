"""Rule 7: standard normals from AES.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the key,
which is fixed.
"""

import math

import numpy as np
import pytest
from scipy import stats

from dtjob_accounting import pld
from dtjob_trainer.mechanism import normals
from dtjob_trainer.mechanism.normals import RARE, box_muller, gaussian
from tests.support.mechanism import reference

KEY = bytes(range(32))
ALARM = 1e-6
COUNT = 1_000_000
LAST = 2**64 - 1
# Of a standard normal: the smallest that a cell of the lattice can be.
CELL = 2.0**-31
# Words w, v and the further s, t, and the normals of the pair, computed in 60 digits with mpmath.
KNOWN = [
    ((0, 12345, 0, 0), (16.357102790413065, 6.8782065364257174e-14)),
    ((0, 0x2000000000000000, 0, 0x100000000), (10.53107539093111, 10.53107539093111)),
    ((1, 0x4000000000000003, 0x8000000000000000, 9), (-1.117768960274031e-17, 9.3761350723769264)),
    ((0x100000007FF, 0xC000000000000000, 1, 1), (9.8234377944827686e-19, -5.7681075460806895)),
    ((0x20000000000001, 777, 0, 0), (3.9050272690877328, 1.0341525674481464e-15)),
    ((0x7FFFFFFFFFFFFFFF, 0x800000000000000, 0, 0), (1.1547864190824137, 0.22970130043756079)),
    ((0x8000000000000000, 0x800000000000000, 0, 0), (1.1547864190824137, 0.22970130043756079)),
    ((0xBFFFFFFFFFFFFFFF, 0x15EE2A321CE7D15, 0, 0), (0.75809844514077666, 0.025512592551496803)),
    (
        (0xFFFFFF0000000000, 0x2000000000000000, 0, 0),
        (0.0002441406286378679, 0.0002441406286378679),
    ),
    (
        (0xFFFFFFFEFFFFFFFF, 0x4000000000000, 0xFFFFFFFFFFFFFFFF, 0),
        (2.1579184854535982e-5, 8.2755141519620915e-9),
    ),
    (
        (0xFFFFFFFFFFFFFFFE, 0x3FFFFFFFFFFFFFFF, 0x8000000000000000, 0),
        (6.8680099601236838e-29, 4.0327450436746639e-10),
    ),
    (
        (0xFFFFFFFFFFFFFFFF, 0x2000000000000000, 0x8000000000000000, 0),
        (1.6463612699567981e-10, 1.6463612699567981e-10),
    ),
    (
        (0xFFFFFFFFFFFFFFFF, 12345, 0, 0x8000000000000000),
        (5.4210108624275222e-20, 2.2795499194293561e-34),
    ),
]


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
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
def test_a_slice_equals_the_slice_of_the_whole_bit_for_bit(sample):
    generator = np.random.default_rng(0)
    for start in [0, 1, 2, 7, *generator.integers(0, COUNT - 5000, 40).tolist()]:
        count = int(generator.integers(0, 5000))
        assert np.array_equal(gaussian(KEY, 9, start, count), sample[start : start + count])


@pytest.mark.rule(7)
def test_moments(sample):
    n = COUNT
    assert two_sided(sample.mean() * math.sqrt(n)) > ALARM
    assert two_sided((sample.var() - 1) / math.sqrt(2 / n)) > ALARM
    assert two_sided(stats.skew(sample) / math.sqrt(6 / n)) > ALARM
    assert two_sided(stats.kurtosis(sample) / math.sqrt(24 / n)) > ALARM


@pytest.mark.rule(7)
def test_distribution(sample):
    assert stats.kstest(sample, "norm").pvalue > ALARM
    for part in (sample[0::2], sample[1::2]):
        assert stats.kstest(part, "norm").pvalue > ALARM


@pytest.mark.rule(7)
@pytest.mark.parametrize("beyond", [3.0, 4.0, 4.5])
def test_tails(sample, beyond):
    found = int((np.abs(sample) > beyond).sum())
    assert stats.binomtest(found, COUNT, 2 * stats.norm.sf(beyond)).pvalue > ALARM


def from_words(*pairs):
    """`box_muller` of pairs of w, v, s, t; the last two count where w is near an end."""
    stream = np.array([pair[:2] for pair in pairs], np.uint64)
    rare = [i for i, (w, *_) in enumerate(pairs) if min(w, LAST - w) < RARE]
    further = np.array([pairs[i][2:] for i in rare], np.uint64).reshape(-1, 2)
    return box_muller(stream, np.array(rare, np.intp), further)


@pytest.mark.rule(7)
@pytest.mark.parametrize(("words", "expected"), KNOWN)
def test_known_words_have_their_normals(words, expected):
    """The format asks for a cell; here is much less, so that a change of the format shows."""
    assert from_words(words)[0] == pytest.approx(expected, rel=2**-48, abs=2**-16 * CELL)
    assert reference.from_words(*words) == pytest.approx(expected, rel=2**-48, abs=2**-16 * CELL)


@pytest.mark.rule(7)
@pytest.mark.parametrize("w", [0, 5, RARE - 1, RARE, LAST - RARE, LAST - RARE + 1, LAST - 5, LAST])
def test_the_rare_ends_of_the_noise_are_filled_in(monkeypatch, w):
    """Words that no test would meet by chance: near the ends two further words decide."""
    s, t = 12345678901234567890, 2**62 + 1
    given = {6: w, 7: 12345, 2**64 + 6: s, 2**64 + 7: t}

    def words(_key, _draw, start, count):
        return np.array([given.get(start + i, 2**63) for i in range(count)], np.uint64)

    monkeypatch.setattr(normals, "words", words)
    found = gaussian(KEY, 0, 2, 8)
    assert found[4:6] == pytest.approx(reference.from_words(w, 12345, s, t), rel=1e-13, abs=1e-25)
    assert np.array_equal(gaussian(KEY, 0, 7, 1), found[5:6])


def _after(w, s, t):
    """The words of the next u above that of w, s, t."""
    if RARE <= w <= LAST - RARE:
        return w + 1, 0, 0
    number = ((w if w < 2**63 else LAST - w) << 128 | s << 64 | t) + (1 if w < 2**63 else -1)
    w = number >> 128 if w < 2**63 else LAST - (number >> 128)
    return w, number >> 64 & LAST, number & LAST


@pytest.mark.rule(7)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param((0, 0, 2**32), id="end"),
        (0, 1, 0),
        (0, 2**63, 0),
        (RARE - 1, LAST - 1, LAST - 1),
        (RARE, 0, 0),
        (2**63 - 1, 0, 0),
        (2**63, 0, 0),
        (LAST - RARE, 0, 0),
        (LAST - 5, 0, 2**63),
        (LAST, 0, 5),
    ],
)
def test_a_cell_has_many_radii_as_far_as_delta_counts_on_the_noise(words):
    """Their distance is largest beside the words at which it changes its law."""
    here, there = (from_words((w, 0, s, t))[0, 0] for w, s, t in (words, _after(*words)))
    assert 0 <= here - there <= CELL / 16


@pytest.mark.rule(7)
def test_the_noise_reaches_as_far_as_delta_counts_on_it():
    assert from_words((0, 0, 0, 2**32))[0, 0] >= pld.NOISE_REACH
    assert from_words((0, 0, 0, 0))[0, 0] == pytest.approx(math.sqrt(2 * 193 * math.log(2)))


@pytest.mark.rule(7)
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_coordinates_are_uncorrelated(sample, lag):
    for values in (sample, sample**2 - 1):
        product = (values[:-lag] * values[lag:]).mean() / values.var()
        assert two_sided(product * math.sqrt(COUNT)) > ALARM


@pytest.mark.rule(7)
def test_draws_and_keys_give_other_noise(sample):
    for other in (gaussian(KEY, 10, 0, COUNT), gaussian(bytes(32), 9, 0, COUNT)):
        assert not np.any(other == sample)
        assert two_sided((other * sample).mean() * math.sqrt(COUNT)) > ALARM
