"""What a console block shows: commands after `$`, and what each of them prints.

In the output `[...]` alone on a line stands for any lines, within a line for any text; `^C` is
Ctrl-C at that moment. Blank lines and the width of columns don't count. Where a block shows a real
run, numbers, digests and the ids of runs may be others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

GAP = "[...]"
INTERRUPT = "^C"

_TOKEN = re.compile(
    r"(?P<gap>\[\.\.\.\])|(?P<space>\s+)|(?P<digest>sha256:[0-9a-f]{64})"
    r"|(?P<id>(?<=-)[0-9a-f]{8}(?![0-9a-f]))|(?P<number>\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)"
)
_LOOSE = {
    "digest": r"sha256:[0-9a-f]{64}",
    "id": r"[0-9a-f]{8}",
    "number": r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?",
}
_ALWAYS = {"gap": r".*", "space": r"\s+"}


@dataclass(frozen=True)
class Command:
    """A command and the lines that it is shown to print."""

    text: str
    output: tuple[str, ...]

    @property
    def before_interrupt(self) -> tuple[str, ...] | None:
        """What it has printed when Ctrl-C is pressed; None where it is not."""
        if INTERRUPT not in self.output:
            return None
        return self.output[: self.output.index(INTERRUPT)]

    @property
    def expected(self) -> tuple[str, ...]:
        """Its whole output, without the mark of an interrupt."""
        return tuple(line for line in self.output if line != INTERRUPT)


def commands(text: str) -> list[Command]:
    """The commands of a block.

    Raises
    ------
    ValueError
        The block does not begin with one.
    """
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif not found:
            raise ValueError(f"a console block begins with a command after $, not with {line!r}")
        elif line.strip():
            found[-1][1].append(line.rstrip())
    return [Command(command, tuple(output)) for command, output in found]


def matched(shown: Sequence[str], printed: Sequence[str], *, loose: bool) -> set[int]:
    """How many lines of `printed` the whole of `shown` can stand for; empty if it can't."""
    actual = [line.strip() for line in printed if line.strip()]
    reached = {0}
    for line in shown:
        if line.strip() == GAP:
            reached = set(range(min(reached), len(actual) + 1)) if reached else reached
            continue
        pattern = _pattern(line.strip(), loose=loose)
        reached = {
            position + 1
            for position in reached
            if position < len(actual) and pattern.fullmatch(actual[position])
        }
    return reached


def agrees(shown: Sequence[str], printed: Sequence[str], *, loose: bool) -> bool:
    """Whether a page shows what was printed."""
    return sum(bool(line.strip()) for line in printed) in matched(shown, printed, loose=loose)


def _pattern(line: str, *, loose: bool) -> re.Pattern[str]:
    parts, end = [], 0
    for token in _TOKEN.finditer(line):
        kind = token.lastgroup or ""
        regex = _ALWAYS.get(kind) or (_LOOSE[kind] if loose else re.escape(token[0]))
        parts += [re.escape(line[end : token.start()]), regex]
        end = token.end()
    return re.compile("".join([*parts, re.escape(line[end:])]))
