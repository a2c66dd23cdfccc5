"""docs/design/mutations.md names tests that exist and that are marked with the rule they prove."""

from __future__ import annotations

import re

import pytest

from mutations import catalog
from mutations.page import ROW, counted, unnamed
from tests.support.checkout import ROOT
from tests.support.pages.contract import RULES, cited_numbers
from tests.support.pages.holders import marked

PAGE = ROOT / "docs" / "design" / "mutations.md"
_TEST = re.compile(r"\b(test_\w+)(?:\[[^\]]*\])?(?: \((test_\w+\.py)\))?")
ROWS = [(found["rule"], found["words"], found["tests"]) for found in ROW.finditer(PAGE.read_text())]


MARKED = marked()


@pytest.mark.parametrize("row", ROWS, ids=[words[:60] for _, words, _ in ROWS])
def test_a_row_names_tests_of_its_rule(row: tuple[str, str, str]) -> None:
    rule, _, tests = row
    numbers = cited_numbers(rule) if rule.strip() else set()
    named = [(name, file) for name, file in _TEST.findall(tests) if not name.endswith("_py")]
    assert named
    for name, file in named:
        found = [rules for f, n, rules in MARKED if n == name and file in ("", f)]
        assert found, name
        assert any(numbers <= rules for rules in found), f"{name} lacks a mark of {numbers}"


def test_every_table_is_read() -> None:
    assert len(ROWS) == sum(
        line.startswith("| ") and "test_" in line for line in PAGE.read_text().splitlines()
    )


def test_a_mutation_that_is_made_stands_in_its_row() -> None:
    """With its tests; `python -m mutations.page` writes how many there are."""
    page, mutations = PAGE.read_text(), catalog.read()
    assert unnamed(page, mutations) == []
    assert counted(page, mutations) == page


def test_every_mutation_can_be_made() -> None:
    assert catalog.inapplicable(catalog.read(), ROOT) == []


@pytest.mark.parametrize("number", RULES)
def test_a_rule_that_is_built_has_a_test(number: int) -> None:
    if number == 0 or RULES[number].partition("**")[2].strip().startswith("*Not built.*"):
        return  # rule 0 says who is trusted
    assert any(number in rules for *_, rules in MARKED)


def test_marks_are_where_they_are_read() -> None:
    """On a function, by plain numbers: one of a module, a class or a case would prove nothing."""
    plain = re.compile(r"@pytest\.mark\.rule\(\d+(, \d+)*\)")
    lines = [
        f"{path.name}: {line}"
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in ("test_mutations_page.py", "holders.py", "conftest.py")
        for line in map(str.strip, path.read_text().splitlines())
        if "mark.rule" in line and not plain.fullmatch(line)
    ]
    assert lines == []


def test_marks_name_rules_that_there_are() -> None:
    assert {number for *_, rules in MARKED for number in rules} <= set(RULES)
