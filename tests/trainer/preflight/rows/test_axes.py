"""Rule 21: rows are told from all else by how many they are."""

from __future__ import annotations

from collections.abc import Container

import pytest

from dtjob_trainer.preflight.rows.axes import FEWER_BY, Axis, axis_of, rows_apart_from


@pytest.mark.parametrize(
    ("sizes", "rows"), [((), 13), ((13, 30), 19), ((11,), 19), ((13, 17), 31), (range(200), 103)]
)
def test_rows_are_as_many_as_nothing_else_is(sizes: Container[int], rows: int) -> None:
    """Nor are those of the smaller batch, unless nothing is free."""
    assert rows_apart_from(sizes) == rows
    assert rows - FEWER_BY not in sizes or sizes == range(200)


def test_the_axis_is_where_rows_make_a_difference() -> None:
    assert axis_of((7, 5), (5, 5)) == Axis(0, 1)
    assert axis_of((4, 14), (4, 10)) == Axis(1, 2)
    assert axis_of((7, 7), (5, 5)) is None
    assert axis_of((7,), (7,)) is None
