"""Rule 8: where task code finds its random numbers, each micro-batch and each read has its own."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from dtjob_trainer.mechanism import coins
from dtjob_trainer.mechanism.coins import Coins, begin_read, label, permuted, read_seeds
from dtjob_trainer.mechanism.prf import words
from tests.support.mechanism import reference

KEY = bytes(range(32))
CPU = torch.device("cpu")
PLACES = [(c, r, m) for c in (0, 1, 2, 2**31 - 1) for r in (0, 1, 2) for m in (0, 1, 2)]


@pytest.fixture(autouse=True)
def generators_as_before():
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def numbers() -> tuple[tuple[int, ...], ...]:
    """Eight words of each generator."""
    return (
        tuple(torch.randint(0, 2**32, (8,)).tolist()),
        tuple(np.random.randint(0, 2**32, 8, dtype=np.uint64).tolist()),
        tuple(random.getrandbits(32) for _ in range(8)),
    )


def begun(key: bytes, draw: int, rank: int, micro_batch: int) -> tuple[tuple[int, ...], ...]:
    Coins(key, rank, CPU).begin(draw, micro_batch)
    return numbers()


@pytest.mark.rule(8)
def test_torch_s_generator_has_all_624_words_of_its_state():
    """Against numpy's MT19937 in the same state: by a seed it would have 32 bits."""
    Coins(KEY, 3, CPU).begin(5, 7)
    position = (3 * 2**32 + 7) * 1024
    stream = [reference.word(KEY, 5, position + i) for i in range(312)]
    state = np.array([half for w in stream for half in (w % 2**32, w >> 32)], dtype=np.uint32)
    bits: Any = np.random.MT19937()
    bits.state = {"bit_generator": "MT19937", "state": {"key": state, "pos": 624}}
    expected = [bits.random_raw() for _ in range(2000)]  # beyond the first 624
    # For so small a range torch takes one word a number.
    assert torch.randint(0, 2**20, (2000,)).tolist() == [n % 2**20 for n in expected]


def test_a_normal_that_torch_kept_is_forgotten():
    Coins(KEY, 0, CPU).begin(0, 0)
    expected = torch.normal(0.0, 1.0, (1,)).item()
    Coins(KEY, 0, CPU).begin(0, 0)
    torch.randn(1, dtype=torch.float64)  # of a pair of which the other one is kept
    Coins(KEY, 0, CPU).begin(0, 0)
    assert torch.normal(0.0, 1.0, (1,)).item() == expected


@pytest.mark.rule(2, 8)
def test_the_same_keys_repeat_every_number_and_no_place_shares_them():
    first = {place: begun(KEY, *place) for place in PLACES}
    torch.rand(3), np.random.rand(3), random.random()
    assert {place: begun(KEY, *place) for place in PLACES} == first
    assert len({n for each in first.values() for n in each}) == 3 * len(PLACES)
    assert not set(begun(bytes(32), 0, 0, 0)) & set(first[0, 0, 0])


def test_a_mask_is_repeated_by_the_same_keys():
    dropout = torch.nn.Dropout(0.5)
    masks = []
    for key in (KEY, KEY, bytes(32)):
        Coins(key, 1, CPU).begin(4, 2)
        masks.append(dropout(torch.ones(64)).tolist())
    assert masks[0] == masks[1] != masks[2]


def test_what_two_micro_batches_of_a_rank_take_does_not_overlap():
    last = coins._STATE_WORDS // 2 + 8
    assert last <= coins._WORDS_PER_BATCH
    assert words(KEY, 0, (5 << 32) * 1024, last).tolist() == [
        reference.word(KEY, 0, (5 << 32) * 1024 + i) for i in range(last)
    ]


@pytest.mark.rule(2, 8)
def test_seeds_of_gpus_are_distinct():
    """Four rounds of Feistel undo each other: so it is a permutation, whatever the rounds give."""

    def inverse(number: int) -> int:
        left, right = divmod(number, 2**32)
        for turn in reversed(range(4)):
            word = reference.word(KEY, 2**63 + turn * 2**32 + left, 0) % 2**32
            left, right = right ^ word, left
        return left * 2**32 + right

    labels = [*range(100), *(2**64 - 1 - i for i in range(20)), *(2**i for i in range(7, 64))]
    seeds = [permuted(KEY, number) for number in labels]
    assert [inverse(seed) for seed in seeds] == labels
    assert max(seeds) < 2**64
    # Each bit is set in about half of them; a false alarm has probability 1e-6.
    ones = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds]).sum(axis=0)
    low, high = stats.binom.ppf([1e-6 / 128, 1 - 1e-6 / 128], len(seeds), 0.5)
    assert low <= ones.min()
    assert ones.max() <= high


def test_every_micro_batch_of_an_attempt_has_a_label():
    ends = [(0, 2**31 - 1), (0, 2**18 - 1), (0, 2**15 - 1)]
    found = {label(c, r, m) for c in ends[0] for r in ends[1] for m in ends[2]}
    assert len(found) == 8
    assert max(found) == 2**64 - 1
    for beyond in ((2**31, 0, 0), (0, 2**18, 0), (0, 0, 2**15)):
        with pytest.raises(ValueError, match="no seed is left"):
            label(*beyond)


def test_a_gpu_is_seeded_by_its_label(monkeypatch):
    seeds = []

    class Generator:
        def manual_seed(self, seed: int) -> None:
            seeds.append(seed)

    monkeypatch.setattr(torch.cuda, "default_generators", (None, Generator()))
    Coins(KEY, 2, torch.device("cuda", 1)).begin(9, 4)
    assert seeds == [permuted(KEY, label(9, 2, 4))]


def read(draw: int, ids: list[int]) -> dict[int, tuple[tuple[int, ...], ...]]:
    found = {}
    for i, seed in zip(ids, read_seeds(KEY, draw, np.array(ids)).tolist(), strict=True):
        begin_read(*seed)
        found[i] = numbers()
    return found


@pytest.mark.rule(8)
def test_a_read_has_numbers_of_its_draw_and_id_alone():
    first = read(3, [0, 5, 2, 10**8])
    assert read(3, [10**8, 7, 2, 5, 0]) == first | read(3, [7])
    others = [*first.values(), *read(4, [0, 5]).values()]
    assert len({n for each in others for n in each}) == 3 * 6


def test_a_seed_is_the_block_of_its_id():
    assert read_seeds(KEY, 3, np.array([6])).tolist() == [
        [reference.word(KEY, 3, 12), reference.word(KEY, 3, 13)]
    ]
