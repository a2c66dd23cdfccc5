"""`python -m testing.budget`: what each tier of `make test` took, beside what it may take.

It reports; nothing fails for being slow.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from testing.figures import FOLDER, Figures, read
from testing.tiers import Tier

MINUTES = {
    Tier.CHECK: 1,
    Tier.MODELS: 2,
    Tier.PROCESSES: 7,
    Tier.CLUSTER: 8,
    Tier.PODS: 4,
    Tier.DOCS: 3,
}
"""On two idle cores with everything cached."""
_SLOWEST = 10


def table(sessions: Sequence[Figures]) -> list[str]:
    """The lines of the report."""
    tests: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for session in sessions:
        tests.update(session.tests)
        seconds.update(session.seconds)
    lines = ["tier        tests    used  budget"]
    for tier, minutes in MINUTES.items():
        over = "  over" if seconds[tier] > 60 * minutes else ""
        used = _clock(seconds[tier]) if tests[tier] else "-"
        lines.append(f"{tier:10} {tests[tier]:6} {used:>7} {_clock(60 * minutes):>7}{over}")
    budget = 60 * sum(MINUTES.values())
    lines.append(f"{'all':10} {tests.total():6} {_clock(seconds.total()):>7} {_clock(budget):>7}")
    slowest = heapq.nlargest(_SLOWEST, [tuple(each) for s in sessions for each in s.slowest])
    lines += ["", "slowest tests"]
    return lines + [f"{took:6.1f} s  {tier:10} {name}" for took, tier, name in slowest]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


if __name__ == "__main__":
    print("\n".join(table(read(FOLDER))))
