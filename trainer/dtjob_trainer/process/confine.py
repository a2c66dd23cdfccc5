"""What a process does to itself so that nothing outlives or leaks from it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TextIO

#: The signals that ask processes to stop, one by itself or many at once.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TAKEN_BACK = (signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when the thread that started it ends.

    Called once at start. A parent that died just before is noticed by its changed id; PID 1 of a
    container has the parent 0 and is left alone.
    """
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def leave_stops_to_supervisor() -> None:
    """Let this process, and what it forks, ignore the signals that ask a whole session to stop.

    systemd, batch systems and `kill` by group send it to all processes of a run at once. The
    supervisor receives it, and has the ranks stop between two steps. The handlers do nothing
    but are no SIG_IGN, which programs that the task starts would inherit, and could not be stopped.
    """
    for number in STOPS:
        signal.signal(number, _pass_over)
        signal.siginterrupt(number, False)  # system calls of libraries need not know of it


def let_forks_be_terminated() -> None:
    """Give SIGTERM and SIGHUP back to what this process forks: pools of a task end workers so."""
    masks = threading.local()

    def hold() -> None:
        # One that comes to a child before it has taken them back would be lost.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN_BACK)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def take_back() -> None:
        _take_back()
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=take_back)


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    pass


def _take_back() -> None:
    for number in _TAKEN_BACK:
        if signal.getsignal(number) is _pass_over:  # else it is the task's own
            signal.signal(number, signal.SIG_DFL)


def forbid_core_dumps() -> None:
    """No memory in a core dump, and no debugger: keys and records live there only (Rules 2, 20).

    What this process forks is no more dumpable than itself, what it executes is: for that are limit
    and filter, which are inherited. Where the kernel's core_pattern is a program, a limit of 0 is
    passed over; one of 1 ends the dump, and is less than any file needs. Where the limit may not be
    raised to 1, the filter leaves nothing to dump but registers.
    """
    with contextlib.suppress(OSError):  # some sandboxes have none
        Path("/proc/self/coredump_filter").write_text("0")  # not ours any more after the last line
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))
    _prctl(_PR_SET_DUMPABLE, 0)


def keep_own_log() -> TextIO:
    """A log stream of our own, apart from descriptors 1 and 2, which task code can write to."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding="utf-8")


def drop_task_output() -> None:
    """From the first private read on, what the task prints goes nowhere (Rule 20)."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
