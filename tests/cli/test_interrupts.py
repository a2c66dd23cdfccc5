"""Who is told to stop ends with 130, from the first moments of its process on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.interrupts import Interrupts
from dtjob_trainer.process import stop_at_start
from tests.support.checkout import ROOT

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Stands in the way of an import that takes long.
# In short sleeps: a signal that comes just before a long one would be handled after it.
SLOW_IMPORT = "import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n"


def test_the_commands_that_are_installed_hear_a_stop_before_they_import_the_rest() -> None:
    project = ROOT / "pyproject.toml"
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]
    assert {scripts["dtjob"], scripts["kubectl-dtjob"]} == {"dtjob_cli.__main__:main"}
    assert callable(import_module("dtjob_cli.__main__").main)


@pytest.mark.processes
@pytest.mark.parametrize("number", STOPS)
def test_a_stop_while_a_command_is_imported_ends_it_as_documented(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Not by the signal, which PID 1 of a container would not get; and without a traceback."""
    (tmp_path / "typer.py").write_text(SLOW_IMPORT)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dtjob_cli", "run", "job.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "importing\n"
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, said) == (130, "")


@pytest.mark.processes
@pytest.mark.parametrize("number", STOPS)
def test_a_stop_ends_a_command_that_counts_none_as_ctrl_c_does(
    tmp_path: Path, number: signal.Signals
) -> None:
    manifest = tmp_path / "job.yaml"
    os.mkfifo(manifest)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dtjob_cli", "plan", str(manifest)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            with manifest.open("w"):  # once the command reads it
                process.send_signal(number)
                _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said


def test_a_command_that_counts_stops_ends_where_it_looks() -> None:
    """And before it does what was not wanted any more."""
    interrupts = Interrupts()
    interrupts.check("nothing was asked")
    interrupts.note(signal.SIGTERM, None)
    with pytest.raises(CommandError, match="nothing was raised") as caught:
        interrupts.check("nothing was raised")
    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.INTERRUPTED, "Interrupted")


def test_what_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nohup` wants it."""
    found = dict.fromkeys(STOPS, signal.SIG_DFL) | {signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", found.__getitem__)
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    stop_at_start.exit_on_signal(130)
    assert found[signal.SIGHUP] is signal.SIG_IGN
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = found[number]
        assert callable(handler)
        handler(number, None)
    assert left == [130, 130]
