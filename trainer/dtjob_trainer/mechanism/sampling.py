"""Poisson sampling, the same on every rank (Rule 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtjob_accounting import draws
from dtjob_trainer.mechanism.prf import words

# Records tested at a time: bounds the memory of a draw over 1e8 records to a few MiB.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class PoissonSampler:
    """Takes every record with probability q = B/N, independently of all others.

    Attributes
    ----------
    batch_size, dataset_size
        The expected batch size B and the nominal dataset size N, public constants (Rule 5).
    """

    batch_size: int
    dataset_size: int

    @property
    def rate(self) -> float:
        """q as it is accounted, rounded up."""
        return draws.sample_rate(self.batch_size, self.dataset_size)

    @property
    def quantile(self) -> int:
        """Q, the rows that every step has room for (Rule 8)."""
        return draws.batch_size_quantile(self.dataset_size, self.batch_size)

    def ids(self, key: bytes, draw: int, records: int) -> npt.NDArray[np.int64]:
        """Return the ids of draw c among the records that there are; see `drawn_ids`."""
        threshold = draws.sampling_threshold(self.batch_size, self.dataset_size)
        return drawn_ids(key, draw, records, threshold)


def drawn_ids(key: bytes, draw: int, records: int, threshold: int) -> npt.NDArray[np.int64]:
    """Return the ids of draw c: record i is in it iff PRF64(key, c, i) < threshold (Rule 3).

    A function of its arguments alone: not of rank, world size, batch shape or attempt state.

    Parameters
    ----------
    key
        The attempt's sampling key.
    draw
        The job's charge index c.
    records
        The real number of records |D|, at least 1; it changes nothing but the ids that exist.
    threshold
        ⌊q·2⁶⁴⌋ for the public rate q (`dtjob_accounting.draws.sampling_threshold`);
        2⁶⁴ takes every record.

    Returns
    -------
    ndarray of int64
        Ascending ids, possibly none.
    """
    if records < 1:
        raise ValueError(f"a data set needs at least one record, not {records}")
    if not 0 <= threshold <= 1 << 64:
        raise ValueError(f"threshold {threshold} is outside 0 .. 2**64")
    if threshold == 1 << 64:
        return np.arange(records, dtype=np.int64)
    limit = np.uint64(threshold)
    parts = [
        np.flatnonzero(words(key, draw, first, min(_CHUNK, records - first)) < limit) + first
        for first in range(0, records, _CHUNK)
    ]
    return np.concatenate(parts).astype(np.int64, copy=False)


def deal(ids: npt.NDArray[np.int64], rank: int, world_size: int) -> npt.NDArray[np.int64]:
    """Deal drawn ids round-robin: rank r gets positions r, r + W, r + 2W, … (Rule 8)."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is outside 0 .. {world_size - 1}")
    return ids[rank::world_size]
