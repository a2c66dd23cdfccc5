"""Every line knows its room: sizes, names and places that docs/design/map.md promises."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.support.checkout import ROOT

PACKAGES = {
    "accounting": "accounting/dtjob_accounting",
    "api": "crds/dtjob_api",
    "cli": "cli/dtjob_cli",
    "demo": "tools/demo",
    "exporter": "exporter/dtjob_exporter",
    "localcluster": "tools/localcluster",
    "mutations": "tools/mutations",
    "operator": "operator/dtjob_operator",
    "serving": "serving/dtjob_serving",
    "standin": "tools/standin",
    "testing": "tools/testing",
    "trainer": "trainer/dtjob_trainer",
}
#: Folders of tests that mirror no package: courses of events, pages, and the house itself.
_FREE = {"docs", "flows", "house", "support"}
#: A command and what it shows; a stand-in and what it stands in for; the errors of a package.
_MIRRORS = {"errors", "plan", "worker", "rank", "meeting"}
MODULES = sorted(path for folder in PACKAGES.values() for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
SUPPORT = sorted((ROOT / "tests/support").rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_reads_in_one_sitting() -> None:
    lines = {named(path): len(path.read_text().splitlines()) for path in [*MODULES, *SUPPORT]}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_a_folder_has_at_most_20_modules() -> None:
    folders = Counter(
        named(p.parent) for p in [*MODULES, *TESTS, *SUPPORT] if p.name != "__init__.py"
    )
    assert {folder: n for folder, n in folders.items() if n > 20} == {}


def test_a_name_is_that_of_one_module() -> None:
    """tools/localcluster could be a project of its own, so it is not asked."""
    of_a_project = [p for p in MODULES if not named(p).startswith("tools/localcluster")]
    stems = Counter(p.stem for p in of_a_project if not p.stem.startswith("__"))
    assert {stem for stem, n in stems.items() if n > 1} <= _MIRRORS


def test_no_test_imports_another() -> None:
    """What two of them need lies in tests/support."""
    imported = [
        f"{named(path)}: {node.module}"
        for path in [*TESTS, *SUPPORT]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        if node.module.startswith("tests.") and not node.module.startswith("tests.support")
    ]
    assert imported == []


def test_a_package_is_known_here() -> None:
    """Else no test would ask for its sizes, names and places."""
    found = {named(path.parent) for path in ROOT.glob("*/*/__init__.py")}
    assert found - {"tests/support"} <= set(PACKAGES.values())


def test_a_test_lies_where_its_module_lies() -> None:
    """`test_<module>.py` or `test_<module>_<aspect>.py`, in the folders of the module."""
    assert [named(path) for path in TESTS if not _mirrors_a_module(path)] == []


def _mirrors_a_module(test: Path) -> bool:
    package, *wings = test.relative_to(ROOT / "tests").parent.parts
    if package in _FREE:
        return True
    folder = ROOT.joinpath(PACKAGES[package], *wings)
    words = test.stem.split("_")[1:]
    names = ["_".join(words[:n]) for n in range(len(words), 0, -1)]
    there = any((folder / f"{name}.py").is_file() for name in names)
    return there or (words[0] == "main" and (folder / "__main__.py").is_file())
