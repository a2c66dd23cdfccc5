"""The random numbers that task code finds in torch, numpy and Python while it trains.

Each micro-batch and each read of a record begins with generators in a state of its own, from the
attempt's keys. So the same keys repeat every mask, two ranks never draw the same ones, and what a
record's transforms draw depends on no record that was read before it (`BatchLoader`). That the
numbers are secret is a second line: slots are scattered, and a slot may depend on public numbers
(Rule 8).
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import torch

from dtjob_trainer.mechanism.prf import words, words_of_blocks

_STATE_WORDS = 624
_WORDS_PER_BATCH = 1 << 10
# Of the seeds of GPUs: as many draws and ranks as a job may have.
_DRAW_BITS, _RANK_BITS, _BATCH_BITS = 31, 18, 15
# Draws are below it: what serves a Feistel round serves no draw.
_ROUNDS = 1 << 63
_LOW_HALF = (1 << 32) - 1


class Coins:
    """Sets the process's generators; holds no state of its own.

    Parameters
    ----------
    key
        The attempt's key for coins, which serves nothing else.
    rank
        Of this process.
    device
        The generator of a GPU is set too.
    """

    def __init__(self, key: bytes, rank: int, device: torch.device) -> None:
        self._key, self._rank, self._device = key, rank, device

    def begin(self, draw: int, micro_batch: int) -> None:
        """Set all generators for one micro-batch of a draw.

        torch's CPU generator, an MT19937, gets its whole state of 624 words; by a seed it would
        get 32 bits. The seeds of GPUs, of 64 bits, are distinct over the attempt.
        """
        first = (self._rank << 32 | micro_batch) * _WORDS_PER_BATCH
        stream = words(self._key, draw, first, _STATE_WORDS // 2 + 8)
        torch.set_rng_state(mt19937_state(stream[: _STATE_WORDS // 2].view("<u4")))
        rest = stream[_STATE_WORDS // 2 :]
        np.random.seed(rest[:4].view("<u4"))
        random.seed(rest[4:].tobytes())
        if self._device.type == "cuda":
            generator = torch.cuda.default_generators[self._device.index or 0]
            generator.manual_seed(permuted(self._key, label(draw, self._rank, micro_batch)))


def begin_read(first: int, second: int) -> None:
    """Set the CPU's generators for one read, by a row of `read_seeds`; other bits for each."""
    torch.default_generator.manual_seed(first)
    np.random.seed(second & _LOW_HALF)
    random.seed(second >> 32)


def read_seeds(key: bytes, draw: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return uint64[n, 2], a function of key, draw and each id alone.

    Parameters
    ----------
    key
        The attempt's key for loading, which serves nothing else.
    ids
        int64[n], none negative.
    """
    return words_of_blocks(key, draw, ids)


def mt19937_state(state: npt.NDArray[np.uint32]) -> torch.Tensor:
    """Return the state of torch's CPU generator whose MT19937 has these 624 words.

    `uint8[5056]`: the_initial_seed, left, seeded, next and the words, each word in 64 bits, as
    torch 2.15 writes them (aten/src/ATen/CPUGeneratorImpl.cpp). None of them is used up: the next
    number is the first of the state that follows from them, as after seeding.
    """
    parts = np.zeros(5056, dtype=np.uint8)
    parts[8:16] = np.array([1, 1], dtype="<i4").view(np.uint8)
    parts[24 : 24 + 8 * _STATE_WORDS] = state.astype("<u8").view(np.uint8)
    return torch.from_numpy(parts)


def permuted(key: bytes, number: int) -> int:
    """Return a pseudo-random permutation of 64-bit numbers at `number`: equal for no two.

    Four Feistel rounds (Luby and Rackoff 1988) over halves of 32 bits.
    """
    left, right = divmod(number, 1 << 32)
    for turn in range(4):
        word = int(words(key, _ROUNDS | turn << 32 | right, 0, 1)[0])
        left, right = right, left ^ (word & _LOW_HALF)
    return left << 32 | right


def label(draw: int, rank: int, micro_batch: int) -> int:
    """Return one 64-bit number for each micro-batch of an attempt.

    Raises
    ------
    ValueError
        There are more than 2¹⁵ micro-batches in a step.
    """
    result = 0
    for part, bits in ((draw, _DRAW_BITS), (rank, _RANK_BITS), (micro_batch, _BATCH_BITS)):
        if part >> bits:
            raise ValueError(f"no seed is left for micro-batch {micro_batch}: take more rows each")
        result = result << bits | part
    return result
