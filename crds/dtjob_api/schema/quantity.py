"""Kubernetes resource quantities, exactly (apimachinery's `resource.Quantity`)."""

from __future__ import annotations

import re
from fractions import Fraction

_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"
)
_BINARY = {unit + "i": Fraction(1024) ** (i + 1) for i, unit in enumerate("KMGTPE")}
_DECIMAL = {
    unit: Fraction(10) ** exponent
    for unit, exponent in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
}
_SCALES = {"": Fraction(1)} | _BINARY | _DECIMAL


def is_quantity(text: str) -> bool:
    """Whether the text is a quantity, such as `500m` or `1.5Gi`."""
    return _PATTERN.fullmatch(text) is not None


def parse_quantity(text: str) -> Fraction:
    """The quantity's value in its base unit (bytes, cores).

    Raises
    ------
    ValueError
        The text is not a quantity.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity, such as 500m, 2 or 1.5Gi")
    suffix = match["suffix"] or ""
    number = Fraction(
        match["number"].rstrip(".") if match["number"][-1] == "." else match["number"]
    )
    if suffix in _SCALES:
        return number * _SCALES[suffix]
    return number * Fraction(10) ** int(suffix[1:])
