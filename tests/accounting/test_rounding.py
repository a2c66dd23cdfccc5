"""Decimal rounding never goes below its value, nor a digit too far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtjob_accounting.rounding import round_up


@pytest.mark.rule(3)
@given(st.floats(1e-12, 1e12), st.integers(2, 9))
def test_rounding_is_upwards_tight_and_idempotent(value: float, digits: int) -> None:
    rounded = round_up(value, digits)
    assert value <= rounded <= value * (1 + 10.0 ** (1 - digits)) * (1 + 1e-15)
    assert round_up(rounded, digits) == rounded
    assert float(f"{rounded:.{digits - 1}e}") == rounded


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(7.999990000001, 8.0), (2.20267, 2.2027), (0.1, 0.1), (0.0, 0.0), (math.inf, math.inf)],
)
def test_figures_as_people_see_them(value: float, rounded: float) -> None:
    assert round_up(value, 5) == rounded
