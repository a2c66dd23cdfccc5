"""No text tells people to do what dtjob can't do yet (README.md has the list)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

PACKAGES = ("cli", "operator", "trainer")
# docs/manifest.md says what can be changed in a job that is suspended, and that none can be yet.
PAGES = [
    page
    for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md"))
    if page.name != "manifest.md"
]
NOT_YET = re.compile(r"\bsuspend|\bthen resume\b|, and resume\b", re.I)


def told(package: str) -> Iterator[tuple[str, str]]:
    """The strings of a package that are words for people."""
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", " ".join(node.value.split())


def wrong(text: str) -> bool:
    return NOT_YET.search(text) is not None


def test_it_would_be_found() -> None:
    assert wrong("Suspend the job, correct the variable, and resume")
    assert wrong("free space on it, then resume")
    assert not wrong("then go on with --resume")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_message_names_a_remedy_that_is_not_there_yet(package: str) -> None:
    texts = list(told(package))
    assert texts
    assert [place for place, text in texts if wrong(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_names_a_remedy_that_is_not_there_yet(page: Path) -> None:
    assert [line for line in " ".join(page.read_text().split()).split(". ") if wrong(line)] == []
