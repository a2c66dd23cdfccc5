"""Where the helper that computes epsilon can't be started."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtjob_cli.main import app
from tests.support.checkout import DIGITS
from tests.support.commands.stored_runs import OUTCOME, drawn, leased, stored_run


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("subprocess.Popen", refused)


def _report(folder: Path) -> list[str]:
    run = stored_run(folder, drawn(20))
    leased(run, 20)
    return ["report", str(run.path)]


def _run(folder: Path) -> list[str]:
    return ["run", str(DIGITS), "--dir", str(folder)]


def _resume(folder: Path) -> list[str]:
    run = stored_run(folder, drawn(20))
    leased(run, 20)
    return ["run", str(DIGITS), "--resume", str(run.path)]


def _resume_what_has_ended(folder: Path) -> list[str]:
    run = stored_run(folder, drawn(20).model_copy(update={"outcome": OUTCOME}))
    return ["run", str(DIGITS), "--resume", str(run.path)]


@pytest.mark.parametrize("command", [_report, _run, _resume, _resume_what_has_ended])
def test_a_command_says_so(tmp_path: Path, command: Callable[[Path], list[str]]) -> None:
    result = CliRunner().invoke(app, command(tmp_path), catch_exceptions=False)
    assert result.exit_code == 1
    assert "error (AccountantFailed): the privacy accountant gave no answer: " in result.stderr
    assert os.strerror(errno.EAGAIN) in result.stderr
    assert "run the command again (with --resume if a run had begun)" in result.stderr
