"""Rule 3: Poisson draws by a pseudo-random function.

The statistical tests each raise a false alarm with probability 1e-6 over the choice of the key,
which is fixed.
"""

import numpy as np
import pytest
from scipy import stats

from dtjob_accounting import draws
from dtjob_trainer.mechanism.prf import words
from dtjob_trainer.mechanism.records.sampling import least_words
from tests.support.mechanism import reference

KEY = bytes(range(32))
ALARM = 1e-6
RECORDS, DRAWS = 1437, 1500
RATE = 256 / 1437
THRESHOLD = draws.sampling_threshold(256, 1437)
SLOTS = 350


def drawn_ids(key, draw, records, threshold, slots=SLOTS):
    ids, drawn = least_words(key, draw, records, threshold, slots)
    return ids[drawn]


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
    monkeypatch.setattr("dtjob_trainer.mechanism.records.sampling._CHUNK", 77)
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
    everything = least_words(KEY, 3, 50, 2**64, 20)
    assert everything.ids.tolist() == list(range(50))
    assert everything.drawn.all()
    nothing = least_words(KEY, 3, 50, 0, 20)
    assert nothing.ids.tolist() == reference.read(KEY, 3, 50, 0, 1, 20)
    assert not nothing.drawn.any()


@pytest.mark.rule(8)
@pytest.mark.parametrize("slots", [0, 1, 17, 18, 99, 100, 101])
def test_the_records_of_the_least_words_are_read(slots):
    """Fewer than are drawn (18), as many, and as many as there are."""
    ids, drawn = least_words(KEY, 1, 100, THRESHOLD, slots)
    assert ids.tolist() == reference.read(KEY, 1, 100, 256, 1437, slots)
    assert ids[drawn].tolist() == reference.drawn(KEY, 1, 100, 256, 1437)


@pytest.mark.rule(3)
@pytest.mark.parametrize("slots", [0, 1, 100, 250, 256, 1000, 1437, 5000])
def test_whether_a_record_is_drawn_does_not_depend_on_the_slots(slots):
    expected = drawn_ids(KEY, 9, RECORDS, THRESHOLD)
    assert np.array_equal(drawn_ids(KEY, 9, RECORDS, THRESHOLD, slots), expected)


@pytest.mark.rule(8)
@pytest.mark.parametrize("chunk", [1, 7, 99, 100, 101])
def test_chunks_change_nothing_at_their_borders(monkeypatch, chunk):
    expected = least_words(KEY, 2, 100, THRESHOLD, 40)
    monkeypatch.setattr("dtjob_trainer.mechanism.records.sampling._CHUNK", chunk)
    found = least_words(KEY, 2, 100, THRESHOLD, 40)
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.drawn, expected.drawn)


def given(monkeypatch, values):
    """Let the records have these words; the list of the passes over them."""
    passes = []

    def some(_key, _draw, first, count):
        passes.append(first)
        return np.array(values[first : first + count], dtype=np.uint64)

    monkeypatch.setattr("dtjob_trainer.mechanism.records.sampling.words", some)
    return passes


@pytest.mark.rule(8)
def test_of_equal_words_the_least_id_is_read(monkeypatch):
    given(monkeypatch, [5, 3, 5, 3, 5, 9, 5])
    assert least_words(KEY, 0, 7, 4, 4).ids.tolist() == [0, 1, 2, 3]
    assert least_words(KEY, 0, 7, 0, 5).ids.tolist() == [0, 1, 2, 3, 4]
    assert drawn_ids(KEY, 0, 7, 4, 4).tolist() == [1, 3]  # drawn is what is below the threshold
    assert drawn_ids(KEY, 0, 7, 3, 4).tolist() == []


@pytest.mark.rule(8)
def test_where_too_few_words_are_small_all_are_looked_at_again(monkeypatch):
    """At most one draw in 100,000 needs it, so the words are made up."""
    values = [2**64 - 1 - (7919 * i) % 1000 for i in range(1000)]
    passes = given(monkeypatch, values)
    ids, drawn = least_words(KEY, 0, 1000, 2**50, 3)
    assert len(passes) > 1
    assert ids.tolist() == sorted(sorted(range(1000), key=values.__getitem__)[:3])
    assert not drawn.any()


@pytest.mark.rule(8)
def test_one_look_is_enough_at_any_size(monkeypatch):
    looks = []

    def counted(key, draw, first, count):
        looks.append(first)
        return words(key, draw, first, count)

    monkeypatch.setattr("dtjob_trainer.mechanism.records.sampling.words", counted)
    for records, slots in ((1, 1), (2, 1), (50, 3), (1437, 350), (100_000, 1), (100_000, 4096)):
        looks.clear()
        least_words(KEY, 0, records, 0, slots)
        assert looks == [0]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one record"):
        least_words(KEY, 0, 0, THRESHOLD, SLOTS)
    with pytest.raises(ValueError, match="threshold"):
        least_words(KEY, 0, 1, 2**64 + 1, SLOTS)
