"""Programs forked from a process that has their modules loaded, for tests that start dozens.

Starting a gang as a pod does costs each supervisor's forkserver 3 s of CPU for the import of torch
and opacus, and the accounting helper 2 s more, which an operator starts too. Here one process per
test session and kind of program pays that; it forks programs, and a program forks its forkserver
and its helper where it would execute a new Python. The tree of processes, who is whose parent,
signals, sessions, files and environments are those of the real thing. Tests of what a new program
brings with it start it as such.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ACCOUNTING = ("dtjob_accounting.pld", "dtjob_accounting.process")
GANG = (
    *_ACCOUNTING,
    "dtjob_trainer.ledger.checkpoint",
    "dtjob_trainer.ledger.leasing",
    "dtjob_trainer.rank.loop",
    "dtjob_trainer.rank.rank",
    "dtjob_trainer.preflight.rehearsal",
    "dtjob_trainer.mechanism.step",
    "dtjob_trainer.supervisor",
    "dtjob_trainer.preflight.task_validation",
    "dtjob_trainer.worker.supervision",
    "opacus",
    "sklearn.datasets",
    "torch.distributed",
)
"""What a gang imports, but `preload`: that binds a process to its parent's life."""
OPERATOR = (*_ACCOUNTING, "dtjob_operator.__main__")


class Zygote:
    """The process that forks; this side asks it, one question at a time.

    Threads of a test may share what it has forked: who holds `lock` is the only one to ask, so that
    no two questions mix, and a process that was seen running isn't reaped before it is signalled.
    """

    def __init__(self, loaded: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote_process.py")), *loaded],
                stdin=theirs.fileno(),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._channel = ours.makefile("rwb")
        ours.close()
        self.lock = threading.RLock()

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Fork a process that leads a session and executes a Python file; return its id."""
        pid: int = self._ask(start=list(arguments), log=str(log), environment=dict(environment))
        return pid

    def poll(self, pid: int) -> int | None:
        """Reap a process that has ended; its wait status, or None while it runs."""
        status: int | None = self._ask(poll=pid)
        return status

    def close(self) -> None:
        """End the process; what it has forked is told to stop by the kernel."""
        self._channel.close()
        self._process.wait()

    def _ask(self, **question: Any) -> Any:
        with self.lock:
            self._channel.write(json.dumps(question).encode() + b"\n")
            self._channel.flush()
            answer = self._channel.readline()
        assert answer, "the process that forks is gone"
        return json.loads(answer)


@functools.cache
def zygote(loaded: tuple[str, ...]) -> Zygote:
    """The session's one that has loaded these modules, started by the first who asks."""
    started = Zygote(loaded)
    atexit.register(started.close)
    return started


class Forked:
    """A process that a zygote has forked, with the part of `subprocess.Popen` that tests use.

    Parameters
    ----------
    loaded
        The modules that it has from its zygote.
    arguments
        A Python file, and what it is given.
    """

    def __init__(
        self,
        loaded: tuple[str, ...],
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._zygote = zygote(loaded)
        self.pid = self._zygote.start(arguments, log, environment)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._zygote.lock:
            if self.returncode is None and (status := self._zygote.poll(self.pid)) is not None:
                self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        with self._zygote.lock:
            if self.poll() is None:  # it is not reaped: its number is its own
                os.kill(self.pid, number)
