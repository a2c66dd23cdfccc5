"""A kubectl that is missing, silent or none, or says what is no ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtjob_cli.main import app


def _restore() -> Result:
    restore = ["ledger", "restore", "digits", "--namespace=a"]
    return CliRunner().invoke(app, restore, catch_exceptions=False)


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "kubectl").write_text(script)
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("#!/nowhere/sh\n", "kubectl can't be started: No such file or directory."),
        ("no program\0", "kubectl can't be started: Exec format error."),
        ("#!/bin/sh\necho logged in\n", "kubectl gave no JSON for a/digits: logged in"),
        ("#!/bin/sh\necho Forbidden >&2; exit 1\n", "error (Kubectl): Forbidden\n"),
    ],
)
def test_it_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    _install(tmp_path, monkeypatch, script)
    result = _restore()
    assert result.exit_code == 3
    assert result.stderr.startswith("error (Kubectl): ")
    assert told in result.stderr


def test_one_that_does_not_answer_is_waited_for_no_longer_than_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("dtjob_cli.kubectl.TIMEOUT_SECONDS", 0.01)
    result = _restore()
    assert result.exit_code == 3
    assert result.stderr == "error (NoAnswer): kubectl did not answer within 0.01 s.\n"


def test_without_one_the_remedy_is_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = _restore()
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error (NoKubectl): kubectl is not on the PATH.\nInstall it, or"
    )
