"""`dtjob logs` of local runs: which log, how it is printed, and what is refused."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtjob_cli.commands import show_logs
from dtjob_cli.main import app
from dtjob_cli.runs import run_directory
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume, log_path
from tests.support.commands.stored_runs import drawn, stored_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two attempts of two ranks."""
    found = stored_run(tmp_path, drawn(10))
    logs = LogVolume(found.state, 1 << 20)
    for attempt in (1, 3):
        for rank in (0, 1):
            logs.add(LogKey(attempt, rank), f"σ {attempt}/{rank}\n".encode(), ranks=2)
    return found


def logs(run: RunDirectory, *options: str) -> Result:
    return CliRunner().invoke(app, ["logs", str(run.path), *options], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ([], "σ 3/0\n"),
        (["--rank=1"], "σ 3/1\n"),
        (["--attempt=1", "--rank=1"], "σ 1/1\n"),
        (["--previous"], "σ 1/0\n"),
        (["--follow"], "σ 3/0\n"),
    ],
)
def test_the_newest_attempt_is_shown_unless_another_is_named(
    run: RunDirectory, options: list[str], printed: str
) -> None:
    assert (done := logs(run, *options)).exit_code == 0
    assert (done.stdout, done.stderr) == (printed, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--attempt=2"],
            "(NoLog): no log of attempt 2 of {0} is kept; there are those of",
        ),
        (["--rank=2"], "(NoLog): no log of rank 2 in attempt 3 of {0} is kept; there are those of"),
        (["--previous", "--attempt=1"], "(AttemptTwice): --previous and --attempt 1 both say"),
    ],
)
def test_a_log_that_is_not_there_is_refused_with_those_that_are(
    run: RunDirectory, options: list[str], words: str
) -> None:
    done = logs(run, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error {words.format(run.path)}" in done.stderr


def test_a_run_without_any_says_so(tmp_path: Path) -> None:
    done = logs(stored_run(tmp_path, drawn(10)))
    assert done.exit_code == 2
    assert "no rank was started yet" in done.stderr


def test_a_log_that_can_not_be_read_is_named(run: RunDirectory) -> None:
    path = log_path(run.state, LogKey(3, 0))
    path.unlink()
    path.mkdir()
    done = logs(run)
    assert done.exit_code == 3
    assert f"error (VolumeUnread): {path}: Is a directory." in done.stderr


def test_followed_it_goes_on_until_the_run_is_let_go(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show_logs, "POLL_SECONDS", 0.01)
    written = LogVolume(run.state, 1 << 20)
    is_held = threading.Event()

    def train() -> None:
        with run_directory.locked(run):
            is_held.set()
            for number in range(3):
                time.sleep(0.05)
                written.add(LogKey(3, 0), f"line {number}\n".encode(), ranks=2)

    training = threading.Thread(target=train)
    training.start()
    is_held.wait(60)
    done = logs(run, "--follow")
    training.join()
    assert done.stdout == "σ 3/0\nline 0\nline 1\nline 2\n"


def test_a_terminal_obeys_nothing_of_a_log(run: RunDirectory) -> None:
    LogVolume(run.state, 1 << 20).add(LogKey(3, 0), b"\x1b[2J\xff\n", ranks=2)
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "dtjob_cli.main", "logs", str(run.path)],
        stdout=theirs,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    printed = os.read(ours, 4096).decode()
    os.close(ours)
    assert printed.splitlines() == ["σ 3/0", "\\x1b[2J\\xff"]
    assert logs(run).stdout == "σ 3/0\n\x1b[2J\\xff\n"
