"""Integers of the Poisson draw: its threshold, its batch sizes, its leases and its reserve.

A record takes part in a draw with probability at most q = B / N, independently of all others,
where B is the expected batch size and N the public nominal dataset size. Both are constants of
the job; the real number of records appears nowhere.
"""

from __future__ import annotations

import math
from fractions import Fraction

MAX_PHYSICAL_BATCH_SIZE = 512
_OVERFLOW_SHARE = 0.01
#: How seldom a draw has more, where there is no δ.
_OVERFLOW_WITHOUT_PRIVACY = 1e-6
_SMALLEST_TAIL = 1e-200


def sampling_threshold(batch_size: int, dataset_size: int) -> int:
    """Return ⌊B·2⁶⁴ / N⌋, below which a record's 64-bit word draws it (rule 3).

    Exact integers, rounded down: the probability of a draw never exceeds `sample_rate`.
    With B = N the threshold is 2⁶⁴ and every record is drawn.

    Raises
    ------
    ValueError
        Unless 1 <= batch_size <= dataset_size.
    """
    _check_batch(batch_size, dataset_size)
    return (batch_size << 64) // dataset_size


def sample_rate(batch_size: int, dataset_size: int) -> float:
    """Return the accounted q: the smallest float that is not below B / N (rule 3).

    Raises
    ------
    ValueError
        Unless 1 <= batch_size <= dataset_size.
    """
    _check_batch(batch_size, dataset_size)
    nearest = batch_size / dataset_size
    if Fraction(nearest) < Fraction(batch_size, dataset_size):
        return math.nextafter(nearest, math.inf)
    return nearest


def overflow_delta(delta: float) -> float:
    """Return the part of δ that is left to draws of more records than a step has slots (rule 8)."""
    return delta * _OVERFLOW_SHARE


def overflow_tail(delta: float | None, reserved_draws: int) -> float:
    """Return how likely a draw may be to overflow: `overflow_delta` for all reserved ones (rule 8).

    Less by a thousandth, for what `batch_size_quantile` rounds.

    Raises
    ------
    ValueError
        Unless reserved_draws is at least 1.
    """
    _check_positive(reserved_draws=reserved_draws)
    if delta is None:
        return _OVERFLOW_WITHOUT_PRIVACY
    return overflow_delta(delta) * 0.999 / reserved_draws


def batch_size_quantile(dataset_size: int, batch_size: int, tail: float) -> int:
    """Return the smallest Q with P[Binomial(N, B/N) > Q] <= tail (rule 8).

    Every step has at least Q slots, so that nobody can tell how many records were drawn.
    Probabilities are taken relative to the mode by the exact ratio of neighbouring terms, which
    needs no logarithm of a factorial and keeps full precision at N = 1e8 (about 20 ms).

    Parameters
    ----------
    dataset_size, batch_size
        N and the expected batch size B, 1 <= B <= N.
    tail
        The admitted probability of a larger draw, at least 1e-200 and below one half.

    Raises
    ------
    ValueError
        On arguments outside these ranges.
    """
    _check_batch(batch_size, dataset_size)
    if not _SMALLEST_TAIL <= tail < 0.5:
        raise ValueError(f"tail {tail} must lie in [{_SMALLEST_TAIL:g}, 0.5)")
    # B = N·q is an integer, hence both mode and median: Q >= B for every tail below one half.
    above = _weights(batch_size, dataset_size - batch_size, tail)
    below = _weights(dataset_size - batch_size, batch_size, tail)
    admitted = tail * math.fsum((1.0, *above, *below))
    beyond = 0.0
    # From the far end inwards, the smallest terms first.
    for offset in range(len(above), 0, -1):
        beyond += above[offset - 1]
        if beyond > admitted:
            return batch_size + offset
    return batch_size


def physical_batch_size(quantile: int, world_size: int) -> int:
    """Return P for `physicalBatchSize: auto`: ⌈Q / (W·M)⌉ with the least M that gives P <= 512.

    Each of the W ranks has M micro-batches of P rows, so all together have room for W·M - 1 rows
    more than Q at most. A fixed P would leave up to a whole micro-batch on each rank to padding.
    """
    fewest = micro_batches(quantile, world_size, MAX_PHYSICAL_BATCH_SIZE)
    return _ceil_div(quantile, world_size * fewest)


def micro_batches(quantile: int, world_size: int, physical_batch_size: int) -> int:
    """Return M = ⌈Q / (W·P)⌉, the micro-batches that every rank executes in every step (rule 8)."""
    _check_positive(
        quantile=quantile, world_size=world_size, physical_batch_size=physical_batch_size
    )
    return _ceil_div(quantile, world_size * physical_batch_size)


def lease_steps(steps: int) -> int:
    """Return the default lease length n = clamp(⌈T/100⌉, 10, 100), at most T (rule 9)."""
    _check_positive(steps=steps)
    return min(max(10, _ceil_div(steps, 100)), 100, steps)


def replay_reserve_steps(lease_steps: int) -> int:
    """Return the default reserve R = 3n: three lost leases are paid for in advance (rule 9)."""
    _check_positive(lease_steps=lease_steps)
    return 3 * lease_steps


def default_delta(dataset_size: int) -> float:
    """Return min(1e-5, 1 / (10N)) (rule 9)."""
    _check_positive(dataset_size=dataset_size)
    return min(1e-5, 1 / (10 * dataset_size))


def _weights(successes: int, failures: int, tail: float) -> list[float]:
    """Return the binomial terms beyond the mode `successes`, relative to the mode's.

    Counts successes in `successes + failures` trials of which each succeeds with probability
    `successes / (successes + failures)`. Ends where nothing that `tail` could notice is left.
    """
    trials = successes + failures
    weight, weights = 1.0, []
    for k in range(successes, trials):
        weight *= ((trials - k) * successes) / ((k + 1) * failures)
        if weight < tail * 1e-12:
            break
        weights.append(weight)
    return weights


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} {value} must be at least 1")


def _check_batch(batch_size: int, dataset_size: int) -> None:
    _check_positive(batch_size=batch_size, dataset_size=dataset_size)
    if batch_size > dataset_size:
        raise ValueError(f"batch_size {batch_size} must not exceed dataset_size {dataset_size}")
