"""What asks a whole group to stop is the supervisor's to hear; what a task starts can be ended."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dtjob_trainer.process import confine

pytestmark = pytest.mark.processes

_RANK = """
import os, signal, subprocess, sys, time
from dtjob_trainer.process import confine

confine.leave_stops_to_supervisor()
confine.let_forks_be_terminated()
for number in confine.STOPS:
    os.kill(os.getpid(), number)
print("passed over", flush=True)

gate, opened = os.pipe()
child = os.fork()
if child == 0:
    os.close(opened)
    os.kill(os.getpid(), signal.SIGINT)
    os.read(gate, 1)
    os._exit(0)
os.kill(child, signal.{name})
print("forked", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

program = subprocess.Popen(["sleep", "1000"])
program.send_signal(signal.{name})
print("executed", program.wait(), flush=True)
"""


@pytest.mark.rule(10)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_rank_passes_over_what_its_children_can_be_ended_by(number: signal.Signals) -> None:
    """A task's pool, loader or program would else never end, and the task wait for it for ever."""
    finished = subprocess.run(
        [sys.executable, "-c", _RANK.replace("{name}", number.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert finished.stdout.splitlines() == [
        "passed over",
        f"forked {-number}",
        f"executed {-number}",
    ]


def test_a_handler_of_the_task_stays_with_what_it_forks() -> None:
    def own(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        confine._take_back()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


# It dies as it would in a run, and so do a copy of it and a program that it starts.
_DYING = """
import ctypes, os, resource, subprocess, sys
from pathlib import Path
from dtjob_trainer.process import confine

resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
if sys.argv[1] == "forbidden":
    confine.forbid_core_dumps()
print(ctypes.CDLL(None).prctl(3), flush=True)  # PR_GET_DUMPABLE
dying = "import os, resource as r; from pathlib import Path;" \\
    "kept = int(Path('/proc/self/coredump_filter').read_text(), 16);" \\
    "print(r.getrlimit(r.RLIMIT_CORE), kept, flush=True);" \\
    "os.mkdir('executed'); os.chdir('executed'); os.abort()"
subprocess.run([sys.executable, "-c", dying])
child = os.fork()
place = "forked" if child == 0 else "own"
os.mkdir(place)
os.chdir(place)
if child:
    os.waitpid(child, 0)
os.abort()
"""


def dumped(folder: Path, how: str) -> tuple[str, set[str]]:
    """What the program says that a rank starts, and which of the three left a core file."""
    folder.mkdir()
    died = subprocess.run(
        [sys.executable, "-c", _DYING, how],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGABRT
    return died.stdout.strip(), {path.parent.name for path in folder.rglob("*core*")}


@pytest.mark.rule(2, 20)
def test_no_process_of_a_rank_leaves_its_memory_behind(tmp_path: Path) -> None:
    """Limit and filter are what a program gets that the kernel hands core dumps to."""
    said, left = dumped(tmp_path / "forbidden", "forbidden")
    least = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    assert said == f"0\n({least}, {least}) 0"
    assert left == set()


@pytest.mark.core_files
def test_core_files_are_left_where_nobody_forbids_them(tmp_path: Path) -> None:
    """Or the test above shows nothing."""
    assert dumped(tmp_path / "allowed", "allowed")[1] == {"executed", "forked", "own"}
