"""docs/design/map.md names every wing, files that exist, and where each reason is given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtjob_api.reasons import Reason
from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "design" / "map.md"
ERRORS = ROOT / "docs" / "reference" / "errors.md"
CHAPTERS = re.findall(r"^## .*?`([\w/]+)`\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
TABLE = r"^\| reason \| file \|\n\|---\|---\|\n((?:\|.*\n)+)"
ROWS = [
    (
        set(re.findall(r"`(\w+)`", reasons)),
        [ROOT / package / file for file in re.findall(r"`([\w/]+\.py)`", files)],
    )
    for package, text in CHAPTERS
    for table in re.findall(TABLE, text, re.M)
    for reasons, files in re.findall(r"^\| (.*?) \| (.*?) \|$", table, re.M)
]


@pytest.mark.parametrize(("package", "text"), CHAPTERS, ids=[package for package, _ in CHAPTERS])
def test_files_and_wings_are_those_that_exist(package: str, text: str) -> None:
    folder = ROOT / package
    files = re.findall(r"`([\w/]+\.(?:py|sh))`", text)
    assert files
    assert [file for file in files if not (folder / file).is_file()] == []
    wings = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert wings == set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))


def gives(file: Path, word: str) -> bool:
    """Whether it says this reason, as one of a status or as a word of its own."""
    name = next((reason.name for reason in Reason if reason == word), None)
    return re.search(rf'\bReason\.{name}\b|"{word}"', file.read_text()) is not None


@pytest.mark.parametrize(("reasons", "files"), ROWS, ids=[min(reasons) for reasons, _ in ROWS])
def test_each_reason_is_given_by_a_file_beside_it(reasons: set[str], files: list[Path]) -> None:
    assert [word for word in reasons if not any(gives(file, word) for file in files)] == []
    assert [file for file in files if not any(gives(file, word) for word in reasons)] == []


def test_each_reason_has_its_file() -> None:
    of_the_command = set(re.findall(r"^\| `(\w+)` \| \d", ERRORS.read_text(), re.M))
    mapped = {word for reasons, _ in ROWS for word in reasons}
    assert mapped == {*Reason, *of_the_command}
