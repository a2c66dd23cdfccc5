"""Numbers as text: of fixed rounding, so that a status without news is the same to the byte."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation


def exact(value: float) -> str:
    """A number as its owner wrote it: the shortest text that means the same float."""
    return repr(float(value)).removesuffix(".0").replace("e-0", "e-").replace("e+0", "e+")


def rounded_up(value: float | str, places: int) -> str:
    """At least the value: a loss of privacy is never reported too small (Rule 13)."""
    return _rounded(value, places, ROUND_CEILING)


def rounded_down(value: float | str, places: int) -> str:
    """At most the value."""
    return _rounded(value, places, ROUND_FLOOR)


def rounded(value: float | str, places: int) -> str:
    """The nearest number of so many decimal places."""
    return _rounded(value, places, ROUND_HALF_EVEN)


def duration(lasted: timedelta) -> str:
    """Its two greatest units, as kubectl has them: 9m12s, 2h3m, 1d4h."""
    seconds = max(0, round(lasted.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next((at for at, (_, unit) in enumerate(units) if seconds >= unit), len(units) - 1)
    parts: list[str] = []
    for name, unit in units[first : first + 2]:
        count, seconds = divmod(seconds, unit)
        if count or not parts:
            parts.append(f"{count}{name}")
    return "".join(parts)


def workers(count: int) -> str:
    """So many workers."""
    return "1 worker" if count == 1 else f"{count} workers"


def significant(value: float) -> str:
    """Six significant digits of a figure that carries no promise."""
    return f"{value:.6g}"


def decimal(text: str | None) -> Decimal | None:
    """The number that a status or report holds as text; None for anything else."""
    try:
        value = Decimal(text) if text is not None else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def _rounded(value: float | str, places: int, rounding: str) -> str:
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-places), rounding=rounding))


def percent(part: int, whole: int) -> int:
    """Whole percents done; 100 only when all is."""
    return math.floor(100 * part / whole) if whole else 0


def clock(moment: datetime, now: datetime) -> str:
    """A time of day for a column, with the day where it is not today's."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    return moment.strftime("%H:%MZ" if moment.date() == now.date() else "%m-%d %H:%MZ")
