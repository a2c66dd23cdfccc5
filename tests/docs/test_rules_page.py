"""docs/design/rules.md has every rule that code cites, and names modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.pages.contract import CONTRACT, RULES, cited_numbers
from tests.support.pages.holders import with_holders

PACKAGES = ("accounting", "cli", "crds", "operator", "serving", "trainer")
_CITED = re.compile(r"\brules? (\d+(?:(?:, | and | to )\d+)*)", re.I)


def cited(path: Path) -> set[int]:
    return {n for found in _CITED.findall(path.read_text()) for n in cited_numbers(found)}


def test_the_rules_are_numbered() -> None:
    assert list(RULES) == list(range(24))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_rule_that_is_cited_stands_there(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    missing = {str(file): cited(file) - RULES.keys() for file in files}
    assert {file: numbers for file, numbers in missing.items() if numbers} == {}


def test_the_table_has_what_holds_each_rule() -> None:
    """`python -m tests.support.pages.holders` writes it."""
    page = CONTRACT.read_text()
    assert with_holders(page) == page
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.M)]
    assert numbers == list(RULES)


def test_a_citation_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""(Rules 4, 5 and 21), (rule 90), rules 10 to 12, rule of three"""')
    assert cited(file) == {4, 5, 21, 90, 10, 12}


@pytest.mark.parametrize("number", RULES)
def test_a_rule_says_where_it_is_held_or_that_it_is_not_built(number: int) -> None:
    assert _modules(RULES[number]) or "*Not built" in RULES[number]


@pytest.mark.parametrize("number", RULES)
def test_modules_exist(number: int) -> None:
    for module in _modules(RULES[number]):
        assert (ROOT / module).is_file()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", CONTRACT.read_text()))
def test_links_lead_somewhere(target: str) -> None:
    path, _, anchor = target.partition("#")
    titles = re.findall(r"^#+ (.*)$", (CONTRACT.parent / path).read_text(), re.M)
    assert not anchor or anchor in {
        re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles
    }


_LIST = re.compile(r"(?:(?<=[.;] )|^)`[\w./-]+`(?=[,;.])(?:(?:, |; )`[\w./-]+`)*")


def _modules(text: str) -> list[str]:
    """The files of the lists in a rule; after one of a package come others of that package.

    A bare name is that of the one module in the package's wings that is called so.
    """
    found = []
    for listed in _LIST.findall(" ".join(text.split())):
        package, folder = "trainer/dtjob_trainer", ""
        for word in re.findall(r"`([^`]+)`", listed):
            if word.endswith(".yaml"):
                folder = str(Path(word).parent) if "/" in word else folder
                found.append(f"{folder}/{Path(word).name}")
                continue
            name = word
            if word.startswith("dtjob_"):
                top, _, name = word.partition(".")
                package = f"{top.removeprefix('dtjob_').replace('api', 'crds')}/{top}"
            found.append(_module(package, name))
    return found


def _module(package: str, name: str) -> str:
    """The file of a dotted or bare name: a bare one may lie in any wing, but in one only."""
    straight = f"{package}/{name.replace('.', '/')}.py"
    inside = [str(path.relative_to(ROOT)) for path in (ROOT / package).rglob(f"{name}.py")]
    return straight if straight in inside or len(inside) != 1 else inside[0]
