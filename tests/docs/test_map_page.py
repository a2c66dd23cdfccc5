"""docs/design/map.md names every wing, files that exist, and who gives and tests each reason."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from dtjob_api.reasons import Reason
from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "design" / "map.md"
ERRORS = ROOT / "docs" / "reference" / "errors.md"
TESTS = ROOT / "tests"
CHAPTERS = re.findall(r"^## .*?`([\w/]+)`\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
TABLE = r"^\| (reason|what a user sees) \| file \| test \|\n\|---\|---\|---\|\n((?:\|.*\n)+)"
OF_THE_COMMAND = set(re.findall(r"^\| `(\w+)` \| \d", ERRORS.read_text(), re.M))


class Row(NamedTuple):
    """What a user sees, and by which files."""

    package: str
    kind: str
    seen: str
    files: list[str]
    tests: list[str]

    @property
    def reasons(self) -> set[str]:
        return set(re.findall(r"`(\w+)`", self.seen)) if self.kind == "reason" else set()


ROWS = [
    Row(package, kind, seen, *(re.findall(r"`([\w/]+\.\w+)`", cell) for cell in (files, tests)))
    for package, text in CHAPTERS
    for kind, table in re.findall(TABLE, text, re.M)
    for seen, files, tests in re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", table, re.M)
]
OF_REASONS = [row for row in ROWS if row.reasons]


@pytest.mark.parametrize(("package", "text"), CHAPTERS, ids=[package for package, _ in CHAPTERS])
def test_files_and_wings_are_those_that_exist(package: str, text: str) -> None:
    folder = ROOT / package
    files = re.findall(r"`([\w/]+\.(?:py|sh))`", text)
    tests = {test for row in ROWS for test in row.tests}
    assert files
    assert [file for file in files if not (folder / file).is_file() and file not in tests] == []
    wings = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert wings == set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))


@pytest.mark.parametrize("row", ROWS, ids=[row.seen[:60] for row in ROWS])
def test_a_row_has_files_and_tests(row: Row) -> None:
    assert row.files
    assert row.tests
    assert [file for file in row.files if not (ROOT / row.package / file).is_file()] == []
    assert [file for file in row.tests if not (TESTS / file).is_file()] == []


def given(path: Path, words: set[str]) -> Iterator[str]:
    """The words that a module says; what it compares or keeps in a set was said by another."""
    tree = ast.parse(path.read_text())
    heard = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Set | ast.MatchValue)
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        match node:
            case _ if id(node) in heard:
                pass
            case ast.Attribute(value=ast.Name(id="Reason"), attr=name):
                yield Reason[name]
            case ast.Constant(value=str(word)) if word in words:
                yield word


@pytest.mark.parametrize("package", sorted({row.package for row in OF_REASONS}))
def test_a_reason_is_given_by_the_files_beside_it_and_by_no_other(package: str) -> None:
    mapped = {
        (reason, file)
        for row in OF_REASONS
        if row.package == package
        for reason in row.reasons
        for file in row.files
    }
    words, folder = {reason for reason, _ in mapped}, ROOT / package
    assert mapped == {
        (word, str(path.relative_to(folder)))
        for path in folder.rglob("*.py")
        for word in given(path, words)
    }


def test_what_is_given_is_told_from_what_is_compared(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "QUIET = {Reason.PLANNED}\n"
        "if end.reason is Reason.STOPPED or word == 'Failed': pass\n"
        "match reason:\n    case Reason.TRAINING: pass\n"
        "raise Held(known or Reason.STALLED, 'Refused', 'any')\n"
    )
    assert set(given(module, {"Failed", "Refused"})) == {"Stalled", "Refused"}


@functools.cache
def expected(cases: Path) -> set[str]:
    """The reasons of tests/operator/decide/obstacles/diagnoses.yaml."""
    return {reason for case in YAML(typ="safe").load(cases) for reason in case["expect"] or ()}


def names(test: Path, word: str) -> bool:
    """Whether a test, or a file of cases that one reads, has this reason."""
    if test.suffix == ".yaml":
        return word in expected(test)
    name = next((reason.name for reason in Reason if reason == word), None)
    return re.search(rf'\bReason\.{name}\b|"{word}"|\({word}\)', test.read_text()) is not None


@pytest.mark.parametrize("row", OF_REASONS, ids=[min(row.reasons) for row in OF_REASONS])
def test_a_reason_is_named_by_a_test_beside_it(row: Row) -> None:
    found = {
        (word, test) for word in row.reasons for test in row.tests if names(TESTS / test, word)
    }
    assert {word for word, _ in found} == row.reasons
    assert {test for _, test in found} == set(row.tests)


def test_each_reason_has_its_file() -> None:
    mapped = {word for row in OF_REASONS for word in row.reasons}
    assert mapped == {*Reason, *OF_THE_COMMAND}
