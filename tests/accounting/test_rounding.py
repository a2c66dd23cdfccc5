"""Decimal rounding never goes below its value, nor a digit too far."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtjob_accounting.rounding import decimal_up, percent_up, round_up, significant_up


@pytest.mark.rule(3)
@given(st.floats(1e-12, 1e12), st.integers(2, 9))
def test_rounding_is_upwards_tight_and_idempotent(value: float, digits: int) -> None:
    rounded = round_up(value, digits)
    assert value <= rounded <= value * (1 + 10.0 ** (1 - digits)) * (1 + 1e-15)
    assert round_up(rounded, digits) == rounded
    assert float(f"{rounded:.{digits - 1}e}") == rounded


@pytest.mark.rule(13)
@given(st.floats(1e-12, 0.999999), st.integers(1, 7))
def test_no_figure_is_shown_below_its_value(value: float, digits: int) -> None:
    assert value <= float(significant_up(value, digits)) <= value * (1 + 10.0 ** (1 - digits))
    assert Decimal(value) <= Decimal(percent_up(value, digits).rstrip("%")) / 100
    last_digit = Decimal(1).scaleb(-digits)
    assert Decimal(value) <= Decimal(decimal_up(value, digits)) < Decimal(value) + last_digit


def test_figures_as_a_report_words_them() -> None:
    assert (percent_up(0.02916), percent_up(0.0301), percent_up(1.0)) == ("3.0%", "3.1%", "100.0%")
    assert (significant_up(1e-5), significant_up(6.9589e-05, 3)) == ("1e-05", "6.96e-05")


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(7.999990000001, 8.0), (2.20267, 2.2027), (0.1, 0.1), (0.0, 0.0), (math.inf, math.inf)],
)
def test_figures_as_people_see_them(value: float, rounded: float) -> None:
    assert round_up(value, 5) == rounded
