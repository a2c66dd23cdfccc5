"""`python -m mutations.page`: write into docs/design/mutations.md how many of a row are made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutations import catalog
from mutations.catalog import Mutation

PAGE = Path("docs/design/mutations.md")
ROW = re.compile(
    r"^\| (?P<rule>[^|]*)\| (?P<words>[^|]+) \| (?P<tests>[^|]*test_[^|]*) \|.*$", re.MULTILINE
)


def counted(page: str, mutations: Sequence[Mutation]) -> str:
    """Return the page with the number of its mutations in the last column of each row."""
    made = Counter(mutation.row for mutation in mutations)

    def row(found: re.Match[str]) -> str:
        number = made[found["words"]]
        return f"| {found['rule']}| {found['words']} | {found['tests']} |" + (
            f" {number} |" if number else ""
        )

    return ROW.sub(row, page)


def unnamed(page: str, mutations: Sequence[Mutation]) -> list[str]:
    """Say which mutations have no row, or a test that their row does not name."""
    rows = {found["words"]: found["tests"] for found in ROW.finditer(page)}
    return [
        f"{mutation.row}: {test}"
        for mutation in mutations
        for test in mutation.tests
        if not re.search(rf"\b{test.partition('::')[2]}\b", rows.get(mutation.row, ""))
    ]


if __name__ == "__main__":
    PAGE.write_text(counted(PAGE.read_text(), catalog.read()))
