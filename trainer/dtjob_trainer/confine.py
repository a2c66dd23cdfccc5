"""What a process does to itself so that nothing outlives or leaks from it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import TextIO

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send ``number`` to this process when the thread that started it ends.

    Called once at start. A parent that died just before is noticed by its changed id; PID 1 of a
    container has the parent 0 and is left alone.
    """
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def forbid_core_dumps() -> None:
    """No core file and no debugger: the attempt's keys live in this memory only (Rule 2)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
