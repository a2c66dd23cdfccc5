"""PID 1 of a container hears a stop from its first moments on, which the kernel else drops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.checkout import TOOLS

pytestmark = [pytest.mark.processes, pytest.mark.pid_namespace]

PID1 = subprocess.Popen[str]

#: Stands in the way of an import that takes long. /proc is that of the tests, and so is the number.
#: In short sleeps: a signal that comes just before a long one would be handled after it.
SLOW_IMPORT = """
import os, time
print(os.readlink("/proc/self"), os.getpid(), flush=True)
while True:
    time.sleep(0.01)
"""


@contextmanager
def importing(folder: Path, program: str, first: str) -> Iterator[tuple[int, PID1]]:
    """A `program` as PID 1 that is at its import of the package `first`: its number here."""
    (folder / f"{first}.py").write_text(SLOW_IMPORT)
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-P", "-m", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{TOOLS}"},
    )
    assert process.stdout is not None
    with process:
        try:
            here, own = process.stdout.readline().split()
            assert own == "1"
            yield int(here), process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("program", "first", "number", "code"),
    [
        ("dtjob_trainer.supervisor", "pydantic", signal.SIGTERM, 0),
        ("dtjob_trainer.supervisor", "pydantic", signal.SIGINT, 0),
        ("dtjob_trainer.supervisor", "pydantic", signal.SIGHUP, 0),
        ("standin", "pydantic", signal.SIGTERM, 0),
        ("dtjob_operator", "structlog", signal.SIGTERM, 0),
        ("dtjob_cli", "typer", signal.SIGTERM, 130),
        ("dtjob_cli", "typer", signal.SIGINT, 130),
        ("dtjob_cli", "typer", signal.SIGHUP, 130),
    ],
)
def test_a_stop_that_comes_while_pid_1_still_imports_ends_it_in_order(
    tmp_path: Path, program: str, first: str, number: signal.Signals, code: int
) -> None:
    with importing(tmp_path, program, first) as (pid, process):
        os.kill(pid, number)
        assert process.wait(timeout=20) == code


def test_what_nohup_ignores_is_ignored_from_the_start(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with importing(tmp_path, "dtjob_trainer.supervisor", "pydantic") as (pid, process):
            os.kill(pid, signal.SIGHUP)
            status = Path(f"/proc/{pid}/status").read_text()
            ignored = int(status.split("SigIgn:")[1].split()[0], 16)
            assert ignored & 1 << signal.SIGHUP - 1
            assert process.poll() is None
    finally:
        signal.signal(signal.SIGHUP, before)
