"""How many examples a property test tries, where the default of 100 is not right."""

from __future__ import annotations

import hypothesis

AT_NIGHT = 10
"""So many times as many."""


def examples(number: int) -> int:
    """`number` by day, and `AT_NIGHT` times as many where that profile is loaded."""
    return (
        number * AT_NIGHT if hypothesis.settings.get_current_profile_name() == "nightly" else number
    )
