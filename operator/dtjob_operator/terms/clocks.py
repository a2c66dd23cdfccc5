"""How long something has lasted, by clocks that are put right now and then."""

from __future__ import annotations

from datetime import datetime, timedelta

SKEW = timedelta(minutes=1)
"""By how much clocks of several machines may differ and nothing is made of it."""


def elapsed(since: datetime, now: datetime) -> timedelta:
    """How long ago `since` was; without end where it is to come.

    Clocks of several machines may differ by seconds, and then little has lasted. A time that is
    further ahead is of a clock that was put back since: what began then may be as old as it likes,
    and would else seem new until the clock has come as far again.
    """
    return timedelta.max if since - now > SKEW else now - since
