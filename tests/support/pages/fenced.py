"""The fenced blocks of the pages for users, and the mark above each that says how it is tested.

A mark is a comment of its own line, `<!-- test: KIND -->`:

`file NAME`   written to the page's folder before anything runs
`fast`        run in the fast tier
`processes`   run with real worker processes
`cluster`     run on a cluster with dtjob installed
`make`        targets of the Makefile, which must be there; running them is what runs the tests
`demo`        what `make demo` and the tests on a cluster do themselves
`shown`       not run: it needs what no test has, such as a registry
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT

KINDS = frozenset({"file", "fast", "processes", "cluster", "make", "demo", "shown"})
MARKED = frozenset({"console", "sh", "yaml", "python"})
"""Languages of which every block needs a mark."""
UNMARKED = frozenset({"text", "dockerfile"})

_MARK = re.compile(r"<!-- test: (?P<kind>\S+)(?: (?P<name>\S+))? -->")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    kind, name
        Of the mark; empty without one.
    """

    page: Path
    line: int
    language: str
    kind: str
    name: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page for users."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if "design" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order.

    Raises
    ------
    ValueError
        A block is not closed.
    """
    lines = page.read_text().splitlines()
    found: list[Block] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        mark = _MARK.fullmatch(lines[start - 1]) if start else None
        found.append(
            Block(
                page=page,
                line=start + 1,
                language=lines[start].removeprefix("```"),
                kind=mark["kind"] if mark else "",
                name=(mark["name"] or "") if mark else "",
                text="\n".join(lines[start + 1 : number]) + "\n",
            )
        )
        start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: the block is not closed")
    return found
