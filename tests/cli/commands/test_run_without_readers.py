"""A run whose output reaches nobody, beside files that have the names of Python's own modules."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.checkout import DIGITS

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

PROGRAM = Path(sysconfig.get_path("scripts")) / "dtjob"
# Of the user's folder and of PYTHONPATH; each is imported by a supervisor, its forkserver, a rank,
# the accountant or the command.
NAMES = ("json", "logging", "queue", "random", "secrets", "signal", "types", "typing", "uuid")
TASK = """
import helpers, queue, random, secrets
from dtjob_trainer.tasks import digits

def task(args):
    print("σ ε δ", "x" * 10_000)
    assert "python3" in queue.__file__ and helpers.mine
    return digits.task(args)
"""


def _fill(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')\n")


def test_nothing_that_is_printed_or_lies_about_decides_how_a_run_ends(tmp_path: Path) -> None:
    _fill(tmp_path)
    _fill(tmp_path / "path")
    (tmp_path / "survey.py").write_text(TASK)
    (tmp_path / "path" / "helpers.py").write_text("mine = True\n")
    manifest = DIGITS.read_text().replace("dtjob_trainer.tasks.digits:task", "survey:task")
    (tmp_path / "job.yaml").write_text(manifest.replace("steps: 336", "steps: 20"))

    with Path("/dev/full").open("wb") as full:
        command = subprocess.Popen(
            [PROGRAM, "run", "job.yaml", "--workers", "2"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "path", "PYTHONIOENCODING": "ascii"},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
        )
        assert command.stderr is not None
        first = command.stderr.readline()
        command.stderr.close()  # as `| head -1` does
        code = command.wait(timeout=600)

    (run,) = (tmp_path / "dtjob-runs").iterdir()
    logs = "".join(log.read_text() for log in (run / "logs").iterdir())
    assert code == 0, logs
    assert b"2 workers started" in first
    report = json.loads((run / "report.json").read_text())
    assert (report["state"], report["step"]) == ("Succeeded", 20)
    assert "was imported" not in logs
