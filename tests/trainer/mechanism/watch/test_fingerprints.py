"""Rows are told apart bit for bit by numbers."""

from __future__ import annotations

import pytest
import torch

from dtjob_trainer.mechanism.watch.fingerprints import fingerprints

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.uint8,
    torch.bool,
)


def some(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 7, 700_001])
def test_one_entry_changes_the_number_of_its_row_alone(dtype: torch.dtype, columns: int) -> None:
    """700,001 entries of three rows are several pieces of each dtype but the smallest."""
    rows = some(dtype, 3, columns)
    before = fingerprints(rows)
    assert torch.equal(before, fingerprints(rows.clone()))
    for column in (0, columns // 2, columns - 1):
        changed = rows.clone()
        changed[1, column] = 1 - changed[1, column].real.to(torch.int64)
        assert (fingerprints(changed) != before).tolist() == [False, True, False]


def test_entries_that_change_places_are_another_row() -> None:
    row = torch.arange(1.0, 2_000_001.0)[None]
    for other in (row.flip(1), row.roll(1, 1), row.roll(1_000_000, 1)):
        assert fingerprints(row) != fingerprints(other)


def test_the_last_bit_and_the_sign_of_zero_count() -> None:
    row = torch.zeros(1, 5)
    last = torch.nextafter(row, torch.ones(()))
    assert len({int(fingerprints(each)) for each in (row, -row, last)}) == 3


def test_each_nan_is_like_any_other_and_unlike_a_number() -> None:
    one, other = torch.ones(2, 5), torch.ones(2, 5)
    one[0, 1] = torch.nan
    other.view(torch.int32)[0, 1] = 0x7FC00001
    assert other[0, 1].isnan()
    assert torch.equal(fingerprints(one), fingerprints(other))
    assert not torch.equal(fingerprints(one), fingerprints(torch.ones(2, 5)))


@pytest.mark.parametrize("shape", [(3, 0), (3,), (2, 3, 4)])
def test_every_shape_has_a_number_for_each_row(shape: tuple[int, ...]) -> None:
    assert fingerprints(torch.zeros(shape)).shape == shape[:1]
