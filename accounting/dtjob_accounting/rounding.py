"""Decimal rounding away from the optimistic side."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal


def round_up(value: float, digits: int) -> float:
    """Return the smallest float of `digits` significant decimal digits that is not below value.

    Zero and infinities return themselves. Decimal holds the float exactly, and converting a
    decimal that is not below a float back to a float can't fall below it.
    """
    if value == 0 or math.isinf(value):
        return value
    exact = Decimal(value)
    last_digit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    nearest = float(exact.quantize(last_digit))
    return nearest if nearest >= value else float(exact.quantize(last_digit, ROUND_CEILING))


def significant_up(value: float, digits: int = 6) -> str:
    """Return `value` with so many significant digits, as `:g` writes them, and never below it."""
    return f"{round_up(value, digits):.{digits}g}"


def percent_up(share: float, places: int = 1) -> str:
    """Return a share as a percentage of so many places that is never below it."""
    return f"{Decimal(share).scaleb(2).quantize(Decimal(1).scaleb(-places), ROUND_CEILING)}%"


def decimal_up(value: float, places: int = 4) -> str:
    """Return `value` as a decimal string of `places` places that is never below it."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_CEILING))
