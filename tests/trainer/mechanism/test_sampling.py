"""Rule 3: Poisson draws by a pseudo-random function.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the key,
which is fixed.
"""

import numpy as np
import pytest
from scipy import stats

from dtjob_accounting import draws
from dtjob_trainer.mechanism.sampling import deal, drawn_ids
from tests.support.mechanism import reference

KEY = bytes(range(32))
ALARM = 1e-6
RECORDS, DRAWS = 1437, 1500
RATE = 256 / 1437
THRESHOLD = draws.sampling_threshold(256, 1437)


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    drawn = np.zeros((DRAWS, RECORDS), dtype=bool)
    for c in range(DRAWS):
        drawn[c, drawn_ids(KEY, c, RECORDS, THRESHOLD)] = True
    return drawn


def two_sided(z):
    return 2 * stats.norm.sf(abs(z))


@pytest.mark.rule(3)
def test_a_draw_is_the_reference_draw():
    for c in (0, 1, 2**33):
        assert drawn_ids(KEY, c, 100, THRESHOLD).tolist() == reference.drawn(KEY, c, 100, 256, 1437)


@pytest.mark.rule(3)
def test_more_records_change_nothing_for_the_others(monkeypatch):
    of_1000, of_300_000 = drawn_ids(KEY, 5, 1000, THRESHOLD), drawn_ids(KEY, 5, 300_000, THRESHOLD)
    assert np.array_equal(of_1000, of_300_000[of_300_000 < 1000])
    monkeypatch.setattr("dtjob_trainer.mechanism.sampling._CHUNK", 77)
    assert np.array_equal(of_1000, drawn_ids(KEY, 5, 1000, THRESHOLD))


@pytest.mark.rule(3)
def test_each_record_is_drawn_at_rate_q(masks):
    counts = masks.sum(axis=0)
    statistic = ((counts - DRAWS * RATE) ** 2 / (DRAWS * RATE * (1 - RATE))).sum()
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], RECORDS)
    assert low < statistic < high


@pytest.mark.rule(3)
def test_batch_sizes_are_binomial(masks):
    sizes = masks.sum(axis=1)
    mean, variance = RECORDS * RATE, RECORDS * RATE * (1 - RATE)
    assert two_sided((sizes.mean() - mean) / np.sqrt(variance / DRAWS)) > ALARM
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], DRAWS - 1)
    assert low < (DRAWS - 1) * sizes.var(ddof=1) / variance < high


@pytest.mark.rule(3)
@pytest.mark.parametrize("lag", [1, 2, 10])
def test_draws_are_independent(masks, lag):
    both = (masks[:-lag] & masks[lag:]).sum()
    trials = (DRAWS - lag) * RECORDS
    # Overlaps of neighbouring pairs share a draw: their variance is that of a 1-dependent sum.
    p = RATE**2
    variance = trials * (p * (1 - p) + 2 * (RATE**3 - p**2))
    assert two_sided((both - trials * p) / np.sqrt(variance)) > ALARM


@pytest.mark.rule(2)
def test_draws_under_two_keys_are_independent(masks):
    other = np.zeros((200, RECORDS), dtype=bool)
    for c in range(200):
        other[c, drawn_ids(bytes(32), c, RECORDS, THRESHOLD)] = True
    both, trials, p = (masks[:200] & other).sum(), 200 * RECORDS, RATE**2
    assert two_sided((both - trials * p) / np.sqrt(trials * p * (1 - p))) > ALARM


def test_a_rate_of_one_draws_everything_and_of_zero_nothing():
    assert drawn_ids(KEY, 3, 50, 2**64).tolist() == list(range(50))
    assert drawn_ids(KEY, 3, 50, 0).size == 0


@pytest.mark.rule(8)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 50])
def test_dealing_gives_every_id_to_one_rank_evenly(world_size):
    ids = drawn_ids(KEY, 1, 200, THRESHOLD)
    shares = [deal(ids, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == ids.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(ValueError, match="rank"):
        deal(ids, world_size, world_size)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one record"):
        drawn_ids(KEY, 0, 0, THRESHOLD)
    with pytest.raises(ValueError, match="threshold"):
        drawn_ids(KEY, 0, 1, 2**64 + 1)
