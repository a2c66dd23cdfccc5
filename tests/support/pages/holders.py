"""What holds each rule; `python -m tests.support.pages.holders` writes it into rules.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from tests.support.checkout import ROOT
from tests.support.pages.contract import CONTRACT, cited_numbers

MUTATIONS = ROOT / "docs" / "design" / "mutations.md"
_ROW = re.compile(r"^\| (\d+) \| ([^|]*) \| [^|]* \| [^|]* \|$", re.M)


def rules_of(function: ast.FunctionDef) -> set[int]:
    """What `@pytest.mark.rule(…)` says."""
    return {
        argument.value
        for mark in function.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.rule"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def marked() -> list[tuple[str, str, set[int]]]:
    """Return file, name and rules of each test."""
    return [
        (path.name, node.name, rules_of(node))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def mutated() -> list[set[int]]:
    """Return the rules of each row of the mutations."""
    return [
        cited_numbers(line.split("|")[1])
        for line in MUTATIONS.read_text().splitlines()
        if line.startswith("| ") and "test_" in line and line.split("|")[1].strip()
    ]


def with_holders(page: str) -> str:
    """Return the page with tests and mutations of each rule in the table at its end."""
    files: defaultdict[int, set[str]] = defaultdict(set)
    for file, _, numbers in marked():
        for number in numbers:
            files[number].add(file.removesuffix(".py"))
    rows = [number for numbers in mutated() for number in numbers]

    def row(found: re.Match[str]) -> str:
        number = int(found[1])
        tests = ", ".join(sorted(files[number])) or "none"
        return f"| {number} | {found[2]} | {tests} | {rows.count(number)} |"

    return _ROW.sub(row, page)


if __name__ == "__main__":
    CONTRACT.write_text(with_holders(CONTRACT.read_text()))
