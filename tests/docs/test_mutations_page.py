"""docs/design/mutations.md names tests that exist and that are marked with the rule they prove."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.checkout import ROOT
from tests.support.pages.contract import RULES, cited_numbers

PAGE = ROOT / "docs" / "design" / "mutations.md"
_TEST = re.compile(r"\b(test_\w+)(?:\[[^\]]*\])?(?: \((test_\w+\.py)\))?")
ROWS = [
    tuple(cell.strip() for cell in line.strip("| \n").split(" | "))
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and "test_" in line
]


def _rules(function: ast.FunctionDef) -> set[int]:
    """What `@pytest.mark.rule(…)` says."""
    return {
        argument.value
        for mark in function.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.rule"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


MARKED = [
    (path.name, node.name, _rules(node))
    for path in (ROOT / "tests").rglob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[-2][:60] for row in ROWS])
def test_a_row_names_tests_of_its_rule(row: tuple[str, ...]) -> None:
    numbers = cited_numbers(row[0]) if len(row) == 3 else set()
    named = [(name, file) for name, file in _TEST.findall(row[-1]) if not name.endswith("_py")]
    assert named
    for name, file in named:
        found = [rules for f, n, rules in MARKED if n == name and file in ("", f)]
        assert found, name
        assert any(numbers <= rules for rules in found), f"{name} lacks a mark of {numbers}"


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
        if path.name not in ("test_mutations_page.py", "conftest.py")
        for line in map(str.strip, path.read_text().splitlines())
        if "mark.rule" in line and not plain.fullmatch(line)
    ]
    assert lines == []


def test_marks_name_rules_that_there_are() -> None:
    assert {number for *_, rules in MARKED for number in rules} <= set(RULES)
