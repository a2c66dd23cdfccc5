"""What asks a whole group to stop is the supervisor's to hear; what a task starts can be ended."""

from __future__ import annotations

import signal
import subprocess
import sys

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


_SECRETIVE = """
import ctypes, resource
from dtjob_trainer.process import confine

confine.forbid_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.rule(2)
def test_a_rank_leaves_no_core_and_lets_nobody_look_into_it() -> None:
    """By both: a core that is piped to a program passes over the limit."""
    finished = subprocess.run(
        [sys.executable, "-c", _SECRETIVE], capture_output=True, text=True, timeout=60, check=True
    )
    assert finished.stdout == "(0, 0) 0\n"
