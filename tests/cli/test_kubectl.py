"""A kubectl that is none, or says what is no ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtjob_cli.main import app


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("#!/nowhere/sh\n", "kubectl can't be started: No such file or directory."),
        ("no program\0", "kubectl can't be started: Exec format error."),
        ("#!/bin/sh\necho logged in\n", "kubectl gave no JSON for a/digits: logged in"),
    ],
)
def test_it_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    (tmp_path / "kubectl").write_text(script)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    restore = ["ledger", "restore", "digits", "--namespace=a"]
    result = CliRunner().invoke(app, restore, catch_exceptions=False)
    assert result.exit_code == 3
    assert result.stderr.startswith("error (Kubectl): ")
    assert told in result.stderr
