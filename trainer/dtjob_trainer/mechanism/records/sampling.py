"""Poisson sampling, the same on every rank (Rule 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dtjob_accounting import draws
from dtjob_trainer.mechanism.prf import words

# Records tested at a time: bounds the memory of a draw over 1e8 records to a few MiB.
_CHUNK = 1 << 18
_WORDS = 1 << 64


class Reading(NamedTuple):
    """The records that a step reads, and which of them are drawn.

    Attributes
    ----------
    ids
        int64[n], ascending.
    drawn
        bool[n].
    """

    ids: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PoissonSampler:
    """Takes every record with probability q = B/N, independently of all others.

    Attributes
    ----------
    batch_size, dataset_size
        The expected batch size B and the nominal dataset size N, public constants (Rule 5).
    overflow_tail
        How likely a draw of N records may be to have more than `quantile` of them (Rule 8).
    """

    batch_size: int
    dataset_size: int
    overflow_tail: float

    @property
    def rate(self) -> float:
        """q as it is accounted, rounded up."""
        return draws.sample_rate(self.batch_size, self.dataset_size)

    @property
    def quantile(self) -> int:
        """Q, the slots that every step has at least (Rule 8)."""
        return draws.batch_size_quantile(self.dataset_size, self.batch_size, self.overflow_tail)

    def reading(self, key: bytes, draw: int, records: int, slots: int) -> Reading:
        """Return what draw c reads of the records that there are; see `least_words`."""
        threshold = draws.sampling_threshold(self.batch_size, self.dataset_size)
        return least_words(key, draw, records, threshold, slots)


def least_words(key: bytes, draw: int, records: int, threshold: int, slots: int) -> Reading:
    """Return the records of the least words, of which those below `threshold` are drawn (Rule 3).

    Record i has the word PRF64(key, c, i), and is drawn iff that is below `threshold`: whether it
    is depends on nothing else, `slots` included. Given how many are drawn, any records may have
    the least words in any order, so what is read tells nothing of that number (Rule 8).

    Parameters
    ----------
    key
        The attempt's sampling key.
    draw
        The job's charge index c.
    records
        The real number of records |D|, at least 1; it changes nothing but the ids that exist.
    threshold
        ⌊q·2⁶⁴⌋ for the public rate q (`dtjob_accounting.draws.sampling_threshold`); 2⁶⁴ draws
        every record.
    slots
        K, how many records are read. All are, where there are no more; all that are drawn are,
        where these are more.
    """
    if records < 1:
        raise ValueError(f"a data set needs at least one record, not {records}")
    if not 0 <= threshold <= _WORDS:
        raise ValueError(f"threshold {threshold} is outside 0 .. 2**64")
    wanted = min(slots, records)
    # Eight standard deviations more than are wanted: nearly never too few.
    limit = max(threshold, ((wanted + 8 * math.isqrt(wanted) + 8) * _WORDS) // records)
    ids, found = _below(key, draw, records, limit)
    while len(ids) < wanted:
        limit *= 2
        ids, found = _below(key, draw, records, limit)
    drawn = _is_below(found, threshold)
    if drawn.sum() >= wanted:
        return Reading(ids[drawn], drawn[drawn])
    kept = np.sort(np.argsort(found, kind="stable")[:wanted])
    return Reading(ids[kept], drawn[kept])


def _below(
    key: bytes, draw: int, records: int, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the ids of all words below a limit, ascending, and these words."""
    ids, found = [], []
    for first in range(0, records, _CHUNK):
        chunk = words(key, draw, first, min(_CHUNK, records - first))
        at = np.flatnonzero(_is_below(chunk, limit))
        ids.append(at + first)
        found.append(chunk[at])
    return np.concatenate(ids).astype(np.int64, copy=False), np.concatenate(found)


def _is_below(found: npt.NDArray[np.uint64], limit: int) -> npt.NDArray[np.bool_]:
    if limit >= _WORDS:
        return np.ones(len(found), dtype=np.bool_)
    return found < np.uint64(limit)
