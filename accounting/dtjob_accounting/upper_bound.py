"""A bound of epsilon that is there at once, where the tight figure is late or fails (Rule 13)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtjob_accounting import rdp
from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import Segment
from dtjob_accounting.rounding import decimal_up


def upper_bound(
    segments: Sequence[Segment], delta: float, guaranteed: float | None = None
) -> str | None:
    """A bound of epsilon that needs no helper; None where there is none.

    By the Rényi accountant, with half of δ left to the ends of the noise and to overflow, of which
    it knows nothing: a plan that needed more was refused. And no more than what the plan guarantees
    of all reserved draws.
    """
    try:
        bound = rdp.epsilon_of_segments(segments, delta / 2)
    except PlanError:
        bound = math.inf
    least = min(bound, math.inf if guaranteed is None else guaranteed)
    return decimal_up(least) if math.isfinite(least) else None
