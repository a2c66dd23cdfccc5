"""Quantities, as apimachinery's own table of examples has them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dtjob_api.schema.quantity import is_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("2", 2),
        ("+2", 2),
        ("-1", -1),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1.5", Fraction(3, 2)),
        ("500m", Fraction(1, 2)),
        ("10n", Fraction(1, 10**8)),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("2Ei", 2**61),
        ("10G", 10**10),
        ("1E", 10**18),
        ("1E3", 1000),
        ("1e3", 1000),
        ("1e-3", Fraction(1, 1000)),
        ("12e+2", 1200),
    ],
)
def test_value(text: str, value: Fraction | int) -> None:
    assert is_quantity(text)
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", " ", "1 Gi", "1ki", "2 GB", "big", "1e", "1e1.5", "--1", "."])
def test_not_a_quantity(text: str) -> None:
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
