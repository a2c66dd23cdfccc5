"""docs/design/glossary.md: each of its terms is used, and none of the names that are gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

PAGE = (ROOT / "docs" / "design" / "glossary.md").read_text()
PRODUCT = ("accounting", "cli", "crds", "exporter", "operator", "serving", "trainer", "tools")
FILES = [
    path
    for place in (*PRODUCT, "benchmarks", "tests/support")
    for path in sorted((ROOT / place).rglob("*.py"))
]
GUIDES = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "glossary.md"]


def table(header: str) -> list[list[str]]:
    """The rows of all tables of the page that begin with this header."""
    bodies = re.findall(rf"^\| {header} .*\|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    return [row.strip("| ").split(" | ") for body in bodies for row in body.splitlines()]


def code(cell: str) -> list[str]:
    return re.findall(r"`([A-Za-z_]\w*)`", cell)


TERMS = [term for row in table("term") for term in re.findall(r"\*\*(.*?)\*\*", row[0])]
GONE = [name for row in table("gone") for name in code(row[0])]
NOW = [name for row in table("gone") for name in code(row[1])]
PHRASES = [phrase for row in table("gone") for phrase in re.findall(r'"(.*?)"', row[0])]
NO_NAMES = code(PAGE.partition("## Words that are no names\n")[2].partition("##")[0])


def names(tree: ast.AST) -> Iterator[str]:
    """Whatever the code gives a name to, or calls by one."""
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                yield name
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))


@cache
def identifiers() -> dict[str, Path]:
    """Every name in the code, those of modules and folders too, and a file that has it."""
    return {
        name: path
        for path in FILES
        for name in (
            *path.relative_to(ROOT).with_suffix("").parts,
            *names(ast.parse(path.read_text())),
        )
    }


@cache
def text() -> str:
    """One line for each file, in small letters, comments without their marks."""
    texts = (path.read_text().lower().replace("#", " ") for path in [*FILES, *GUIDES])
    return "\n".join(" ".join(each.split()) for each in texts)


def test_the_page_is_read() -> None:
    assert len(TERMS) > 25
    assert len(GONE) > 10
    assert PHRASES
    assert "told" in NO_NAMES


@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_used(term: str) -> None:
    assert re.search(rf"\b{re.escape(term.lower())}", text())


@pytest.mark.parametrize("name", NOW)
def test_each_name_exists(name: str) -> None:
    assert {name, f"_{name}"} & identifiers().keys()


@pytest.mark.parametrize("name", GONE)
def test_a_name_that_is_gone_stays_away(name: str) -> None:
    assert [str(identifiers().get(each, "")) for each in (name, f"_{name}")] == ["", ""]


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_is_gone_stays_away(phrase: str) -> None:
    assert [m.start() for m in re.finditer(rf"(?<![a-z]){phrase}", text())] == []


def test_what_names_a_thing_is_no_verb_of_speech() -> None:
    parts = {
        name: str(path)
        for name, path in identifiers().items()
        if {part.lower() for part in re.split(r"_|(?<=[a-z])(?=[A-Z])", name)} & set(NO_NAMES)
    }
    assert parts == {}
