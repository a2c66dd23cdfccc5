"""Real processes at the limit of a memory cgroup, as in a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.memory_limits import limited
from tests.support.checkout import DIGITS

pytestmark = pytest.mark.memory_cgroup

ENTERED = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
KILLED = """
import subprocess
from dtjob_trainer.process import memory_group
from dtjob_trainer.worker import deaths
before = memory_group.read()
hungry = "x = bytearray(200_000_000)" if sys.argv[2] == "hungry" else "import os; os.kill(0, 9)"
done = subprocess.run([sys.executable, "-c", hungry], start_new_session=True)
print(deaths.end_of_rank(0, done.returncode, before, memory_group.read()).message)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("hungry", "out of memory: the container's limit is 0.0625 GiB"),
        ("killed", "somebody else ended it"),
    ],
)
def test_a_kill_at_the_limit_differs_from_any_other(how: str, words: str) -> None:
    with limited(2**26) as entry:
        shown = subprocess.run(
            [sys.executable, "-c", ENTERED + KILLED, str(entry), how],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "rank 0 was ended by SIGKILL" in shown.stdout
    assert words in shown.stdout


# The first rank to train takes more than there is.
TASK = """
import dataclasses, os, pathlib
from dtjob_trainer.tasks import digits

def task(args):
    made = digits.task({})
    def dataset():
        once = pathlib.Path("once")
        if not once.exists():
            once.touch()
            bytearray(os.urandom(1)) * (4 * 2**30)
        return made.dataset()
    return dataclasses.replace(made, dataset=dataset)
"""


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_a_rank_that_the_limit_kills_is_on_the_screen_and_in_the_ledger(
    tmp_path: Path,
) -> None:
    (tmp_path / "hungry.py").write_text(TASK)
    manifest = DIGITS.read_text().replace("dtjob_trainer.tasks.digits:task", "hungry:task")
    (tmp_path / "job.yaml").write_text(manifest.replace("steps: 336", "steps: 20"))
    program = "sys.argv = ['dtjob', *sys.argv[2:]]; from dtjob_cli.main import app; app()"
    with limited(3 * 2**29) as entry:
        shown = subprocess.run(
            [
                *(sys.executable, "-P", "-c", ENTERED + program, str(entry)),
                *("run", "job.yaml", "--workers=1"),
            ],
            cwd=tmp_path,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    assert shown.returncode == 0, shown.stderr
    (restart,) = [line for line in shown.stderr.splitlines() if "! restart 1" in line]
    for words in (
        # Itself or, where the kernel doesn't wait until the rank is gone, its forkserver too.
        "was ended by SIGKILL: out of memory: the container's limit is 1.5 GiB",
        "spec.workers.resources.limits.memory",
        "draws in reserve are left",
    ):
        assert words in restart
    (run,) = (tmp_path / "dtjob-runs").iterdir()
    newest = max((run / "ledger").iterdir())
    first = json.loads(newest.read_text())["status"]["attempts"][0]
    assert first["reason"] == "OutOfMemory"
