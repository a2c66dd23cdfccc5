"""`python -m tests.support.attack [WORDS]`: attack the real step, and write what was read.

With words: only attacks whose name has them, and nothing is written.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from tests.support.attack.attacks import ATTACKS, BROKEN, FALSE_ALARM, SOUND, Attack, reading_of
from tests.support.attack.reading import DELTA, Reading

PAGE = Path("docs/design/attacks.md")
_HEAD = """\
# What attacks on the real step read

Written by `make attack`; [how it is read](testing.md#attacks). μ is that of Gaussian DP, √draws/σ
where a step is sound; ε is at δ = {delta:g}, of one trial. What is read are lower bounds: that any
of the {sound} for a sound step exceeds its claim had a chance of at most {alarm:g}.

Commit {commit}, {date:%Y-%m-%d}, {minutes:.0f} minutes.
"""
_SOUND = """
## Sound: each within its claim

In units of C: *without noise* is the most that the record moved the sum, *of releases* how far it
moved their mean, with its standard error.

| model | attacker | μ read | μ claimed | ε read | ε claimed | without noise | of releases |
|---|---|---|---|---|---|---|---|
"""
_BROKEN = """
## Broken: each above its claim

| what is broken | attacker | μ read | μ claimed | ε read | ε claimed |
|---|---|---|---|---|---|
"""


def row(attack: Attack, reading: Reading) -> str:
    """One line of a table."""
    cells = [attack.name.removesuffix(", blind"), attack.attacker.__name__]
    figures = (reading.mu, reading.claimed_mu, reading.epsilon, reading.claimed_epsilon)
    cells += [f"{figure:.2f}" for figure in figures]
    if attack.sound and attack.attacker.__name__ == "knowing":
        mean, error = reading.seen_sensitivity
        cells += [f"{reading.sensitivity:.4f}", f"{mean:.3f} ± {error:.3f}"]
    elif attack.sound:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |\n"


def main(words: list[str]) -> int:
    """Run the attacks; 0 if each sound step is within its claim and each broken one above it."""
    chosen = [it for it in ATTACKS if not words or any(word in it.name for word in words)]
    began = time.monotonic()
    rows, wrong = {}, []
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        readings = pool.map(reading_of, [attack.name for attack in chosen])
        for attack, reading in zip(chosen, readings, strict=True):
            rows[attack.name] = row(attack, reading)
            print(rows[attack.name], end="", flush=True)
            if reading.within != attack.sound:
                wrong.append(attack.name)
    if not words:
        PAGE.write_text(_page(rows, (time.monotonic() - began) / 60))
    for name in wrong:
        print(f"attack: {name}: not on the side of its claim where it should be", file=sys.stderr)
    return 1 if wrong else 0


def _page(rows: dict[str, str], minutes: float) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    head = _HEAD.format(
        delta=DELTA,
        sound=len(SOUND),
        alarm=FALSE_ALARM,
        commit=commit,
        date=datetime.now(UTC),
        minutes=minutes,
    )
    tables = ((_SOUND, SOUND), (_BROKEN, BROKEN))
    return head + "".join(
        title + "".join(rows[attack.name] for attack in attacks) for title, attacks in tables
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
