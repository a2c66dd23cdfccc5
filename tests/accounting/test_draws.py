"""Integers of the draw: exact, and on the safe side of every real number."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dtjob_accounting import draws

sizes = st.integers(1, 10**8).flatmap(
    lambda records: st.tuples(st.integers(1, records), st.just(records))
)


@pytest.mark.rule(3)
@given(sizes)
def test_the_threshold_never_exceeds_the_accounted_rate(size: tuple[int, int]) -> None:
    batch_size, dataset_size = size
    threshold = draws.sampling_threshold(batch_size, dataset_size)
    rate = Fraction(draws.sample_rate(batch_size, dataset_size))
    assert Fraction(threshold, 2**64) <= Fraction(batch_size, dataset_size) <= rate
    assert threshold + 1 > Fraction(batch_size, dataset_size) * 2**64
    below = math.nextafter(float(rate), 0)
    assert Fraction(below) < Fraction(batch_size, dataset_size)


def test_a_full_batch_draws_every_record() -> None:
    assert draws.sampling_threshold(7, 7) == 2**64
    assert draws.sample_rate(7, 7) == 1.0
    assert draws.batch_size_quantile(7, 7, 1e-20) == 7


def assert_scipy_agrees(size: tuple[int, int], tail: float) -> None:
    """Its own sums are good to about 1e-9 (relative); q is rounded in it as well."""
    batch_size, dataset_size = size
    quantile = draws.batch_size_quantile(dataset_size, batch_size, tail)
    rate = batch_size / dataset_size
    assert binom.sf(quantile, dataset_size, rate) <= tail * (1 + 1e-6)
    assert binom.sf(quantile - 1, dataset_size, rate) > tail * (1 - 1e-6)


@pytest.mark.rule(8)
@given(sizes.filter(lambda s: s[1] < 10**6), st.floats(1e-9, 0.4))
def test_the_quantile_is_the_exact_binomial_one(size: tuple[int, int], tail: float) -> None:
    assert_scipy_agrees(size, tail)


@pytest.mark.rule(8)
@pytest.mark.parametrize(
    ("dataset_size", "batch_size", "quantile"),
    [
        (1437, 256, 327),
        (10, 1, 7),
        (60_000, 600, 719),
        (10**8, 10**4, 10_479),
        (10**8, 10**6, 1_004_733),
        (10**8, 5 * 10**7, 50_023_767),
    ],
)
def test_quantiles_at_one_in_a_million(dataset_size: int, batch_size: int, quantile: int) -> None:
    assert draws.batch_size_quantile(dataset_size, batch_size, 1e-6) == quantile
    assert binom.isf(1e-6, dataset_size, batch_size / dataset_size) == quantile


def beyond(quantile: int, dataset_size: int, batch_size: int) -> Fraction:
    """P[Binomial(N, B/N) > quantile], exactly."""
    other = dataset_size - batch_size
    terms = (
        math.comb(dataset_size, k) * batch_size**k * other ** (dataset_size - k)
        for k in range(quantile + 1, dataset_size + 1)
    )
    return Fraction(sum(terms), dataset_size**dataset_size)


@pytest.mark.rule(8)
@pytest.mark.parametrize("tail", [1e-3, 1e-9, 1e-13, 1e-20, 1e-60])
@pytest.mark.parametrize("size", [(16, 64), (1, 100), (150, 300), (290, 300), (1, 1)])
def test_the_quantile_is_exact_however_small_the_tail(size: tuple[int, int], tail: float) -> None:
    batch_size, dataset_size = size
    quantile = draws.batch_size_quantile(dataset_size, batch_size, tail)
    assert beyond(quantile, dataset_size, batch_size) <= Fraction(tail)
    if quantile > batch_size:
        assert beyond(quantile - 1, dataset_size, batch_size) > Fraction(tail)


@pytest.mark.rule(8)
@pytest.mark.parametrize("size", [(256, 1437), (4096, 10**6), (10**4, 10**8), (3, 10**7)])
@pytest.mark.parametrize("tail", [1e-13, 1e-20, 1e-21])
def test_the_quantile_at_large_sizes_is_that_of_scipy(size: tuple[int, int], tail: float) -> None:
    assert_scipy_agrees(size, tail)


@pytest.mark.rule(8)
@given(st.floats(1e-12, 0.5), st.integers(1, 10**7))
def test_all_reserved_draws_overflow_for_less_than_their_part_of_delta(
    delta: float, reserved: int
) -> None:
    tail = draws.overflow_tail(delta, reserved)
    assert reserved * tail < draws.overflow_delta(delta) < reserved * tail * 1.002
    draws.batch_size_quantile(64, 16, tail)  # is never too small a tail


def test_without_privacy_a_draw_overflows_once_in_a_million() -> None:
    assert draws.overflow_tail(None, 1) == draws.overflow_tail(None, 10**9) == 1e-6
    with pytest.raises(ValueError, match="reserved_draws"):
        draws.overflow_tail(1e-5, 0)


@pytest.mark.parametrize("tail", [0.0, 1e-201, 0.5, math.nan])
def test_a_tail_out_of_bounds_is_refused(tail: float) -> None:
    with pytest.raises(ValueError, match="tail"):
        draws.batch_size_quantile(64, 16, tail)


@pytest.mark.rule(8)
@given(st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 600))
def test_micro_batches_hold_every_drawn_record(
    quantile: int, world_size: int, physical: int
) -> None:
    """W·M·P slots are enough for Q, and with fewer micro-batches they would not be."""
    batches = draws.micro_batches(quantile, world_size, physical)
    row = world_size * physical
    assert (batches - 1) * row < quantile <= batches * row


@pytest.mark.rule(8)
@pytest.mark.parametrize(
    ("quantile", "world_size", "rows", "batches"),
    [
        (350, 2, 175, 1),
        (512, 1, 512, 1),
        (513, 1, 257, 2),
        (617, 1, 309, 2),  # 512 would compute 1,024 rows
        (617, 2, 309, 1),
        (5000, 2, 500, 5),
        (1, 8, 1, 1),
    ],
)
def test_a_step_has_hardly_more_rows_than_it_needs(
    quantile: int, world_size: int, rows: int, batches: int
) -> None:
    assert draws.physical_batch_size(quantile, world_size) == rows
    assert draws.micro_batches(quantile, world_size, rows) == batches


@pytest.mark.rule(8)
@given(st.integers(1, 10**7), st.integers(1, 1000))
def test_micro_batches_are_the_fewest_and_their_rows_too(quantile: int, world_size: int) -> None:
    rows = draws.physical_batch_size(quantile, world_size)
    batches = draws.micro_batches(quantile, world_size, rows)
    assert 1 <= rows <= draws.MAX_PHYSICAL_BATCH_SIZE
    assert batches == draws.micro_batches(quantile, world_size, draws.MAX_PHYSICAL_BATCH_SIZE)
    assert 0 <= world_size * batches * rows - quantile < world_size * batches


@pytest.mark.rule(9)
@pytest.mark.parametrize(
    ("steps", "lease"),
    [(1, 1), (9, 9), (10, 10), (336, 10), (1001, 11), (9_950, 100), (10**6, 100)],
)
def test_default_leases(steps: int, lease: int) -> None:
    assert draws.lease_steps(steps) == lease
    assert draws.replay_reserve_steps(lease) == 3 * lease


@pytest.mark.rule(9)
@pytest.mark.parametrize(
    ("dataset_size", "delta"), [(1, 1e-5), (10_000, 1e-5), (20_000, 5e-6), (10**6, 1e-7)]
)
def test_default_delta(dataset_size: int, delta: float) -> None:
    assert draws.default_delta(dataset_size) == pytest.approx(delta)


@pytest.mark.parametrize(("batch_size", "dataset_size"), [(0, 5), (6, 5), (-1, 5), (1, 0)])
def test_impossible_batches_are_refused(batch_size: int, dataset_size: int) -> None:
    for function in (draws.sampling_threshold, draws.sample_rate):
        with pytest.raises(ValueError, match="size"):
            function(batch_size, dataset_size)
    with pytest.raises(ValueError, match="size"):
        draws.batch_size_quantile(dataset_size, batch_size, 1e-6)
