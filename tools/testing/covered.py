"""`python -m testing.covered [ROW...]`: lines that a run under coverage.py met, by wing.

What the processes of a test run is not counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath

from coverage import Coverage

Lines = tuple[PurePath, int, int]
"""A module, from its package on; how many lines it has, and how many of them were met."""


def measured() -> Iterator[Lines]:
    """Read what the last run left, modules that it never imported included."""
    coverage = Coverage()
    coverage.load()
    for file in coverage.get_data().measured_files():
        if not Path(file).is_file():  # a test's own, long gone
            continue
        _, lines, _, missing, _ = coverage.analysis2(file)
        parts = PurePath(file).parts
        package = next(i for i, part in enumerate(parts) if part.startswith("dtjob_"))
        yield PurePath(*parts[package:]), len(lines), len(lines) - len(missing)


def table(modules: Iterable[Lines], only: Collection[str] = ()) -> list[str]:
    """Return the rows of the table in docs/design/testing.md, all of it last, or some of them."""
    lines: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for module, has, of_it in modules:
        package, *wings = module.parent.parts
        for row in {package, "/".join([package, *wings[:1]]), "all"}:
            lines[row] += has
            met[row] += of_it
    order = [row for row in [*sorted(lines.keys() - {"all"}), "all"] if not only or row in only]
    rows = [f"| {row} | {lines[row]} | {met[row] / lines[row]:.0%} |" for row in order]
    return ["| package or wing | statements | covered |", "|---|---|---|", *rows]


if __name__ == "__main__":
    print("\n".join(table(measured(), sys.argv[1:])))
