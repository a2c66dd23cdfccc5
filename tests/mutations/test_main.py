"""Mutations are made in copies, and told by their tests or reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutations import __main__ as mutations
from mutations import catalog, trial
from mutations.trial import Outcomes
from tests.support.checkout import ROOT, TOOLS

SUMS = "def total(a, b):\n    return a + b\n"
TESTS = """
import pytest
from dtjob_sums.sums import total
@pytest.mark.parametrize("b", [0, 1])
def test_total(b): assert total(1, b) == 1 + b
def test_zero(): assert total(0, 0) == 0
"""
ENTRY = """
[[mutation]]
row = "{row}"
file = "sums/dtjob_sums/sums.py"
before = "{before}"
after = "{after}"
tests = ["tests/test_sums.py::{test}"]
"""
TOLD = ENTRY.format(row="a difference", before="a + b", after="a - b", test="test_total")
SURVIVES = ENTRY.format(row="a product", before="a + b", after="a * b", test="test_zero")
BREAKS = ENTRY.format(row="no module", before="def total", after="def summed", test="test_zero")
GONE = ENTRY.format(row="gone", before="a % b", after="a", test="test_zero")
FAILS = ENTRY.format(row="failing", before="a + b", after="a", test="test_not_there")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    for name, text in {
        "sums/dtjob_sums/__init__.py": "",
        "sums/dtjob_sums/sums.py": SUMS,
        "tests/test_sums.py": TESTS,
        "pytest.ini": "[pytest]\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(trial, "import_libraries", lambda: None)
    return root


def made(
    entries: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """What a run with this catalog returns, of which the rows are given."""
    (checkout.parent / "catalog.toml").write_text(entries)
    read = catalog.read
    monkeypatch.setattr(catalog, "read", lambda: read(checkout.parent / "catalog.toml"))
    try:
        return mutations.main(arguments), (checkout / "sums/dtjob_sums/sums.py").read_text()
    finally:
        monkeypatch.setattr(catalog, "read", read)


@pytest.mark.slow
def test_a_mutation_is_told_or_survives(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(os.environ, "PYTEST_XDIST_WORKER", raising=False)
    assert made(TOLD * 3, checkout, monkeypatch) == (0, SUMS)
    assert "mutations: 3 made, 0 survived" in capfd.readouterr().out
    assert made(TOLD + SURVIVES, checkout, monkeypatch) == (1, SUMS)
    said = capfd.readouterr().out
    assert "a difference (sums.py): told" in said
    assert "a product (sums.py): SURVIVED\n  passes: tests/test_sums.py::test_zero" in said
    assert made(TOLD + SURVIVES, checkout, monkeypatch, "--only", "difference") == (0, SUMS)
    assert made(TOLD + SURVIVES, checkout, monkeypatch, "--shard", "2/2") == (1, SUMS)
    capfd.readouterr()
    assert made(BREAKS, checkout, monkeypatch) == (1, SUMS)
    said = capfd.readouterr().out
    assert "does not run: tests/test_sums.py::test_zero" in said
    assert "ImportError" in said
    assert made(FAILS, checkout, monkeypatch) == (2, SUMS)
    assert "do not pass without a mutation" in capfd.readouterr().err


def test_a_mutation_that_can_not_be_made_ends_the_run_at_once(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(TOLD + GONE, checkout, monkeypatch) == (2, SUMS)
    assert "gone: sums/dtjob_sums/sums.py has 0 times" in capsys.readouterr().err
    assert made(TOLD, checkout, monkeypatch, "--only", "nothing") == (2, SUMS)


def test_a_parametrised_test_fails_with_one_of_its_cases() -> None:
    ran = frozenset({"t.py::test_a[0]", "t.py::test_a[1]", "t.py::test_ab"})
    outcomes = Outcomes(ran, frozenset({"t.py::test_a[1]"}))
    assert outcomes.passed(["t.py::test_a", "t.py::test_ab"]) == ["t.py::test_ab"]
    assert outcomes.not_run(["t.py::test_a", "t.py::test_b"]) == ["t.py::test_b"]


@pytest.mark.nightly(minutes=10)
@pytest.mark.timeout(1800)
def test_every_mutation_of_the_list_is_told() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    finished = subprocess.run(
        [sys.executable, "-m", "mutations"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(TOOLS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
