"""A real `dtjob` command in a process of its own, as a user's shell starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

DEADLINE = 300.0
"""Seconds for anything that is waited for: torch takes 15 s of two idle cores to import."""


class Command:
    """`dtjob` with arguments, its output collected line by line."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dtjob_cli.main", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._grown = threading.Condition()
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, text: str) -> None:
        """Return once `text` was printed; fail with all output if it is not."""
        with self._grown:
            appeared = self._grown.wait_for(
                lambda: any(text in line for line in self.err) or self.process.poll() is not None,
                timeout=DEADLINE,
            )
        assert appeared, f"not printed in {DEADLINE} s: {text}\n{self}"
        assert any(text in line for line in self.err), f"ended without {text}\n{self}"

    def wait(self) -> int:
        """Return the exit code."""
        code = self.process.wait(timeout=DEADLINE)
        self._finish()
        return code

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def workers(self) -> list[int]:
        """Process ids of the supervisors."""
        return [
            pid
            for pid, (parent, _) in processes().items()
            if parent == self.process.pid and b"dtjob_trainer.supervisor" in command_line(pid)
        ]

    def kill_everything(self) -> None:
        """SIGKILL to the command, its supervisors and all that they started, at one moment."""
        os.kill(self.process.pid, signal.SIGSTOP)
        sessions = set(self.workers())
        assert sessions, f"no workers to kill\n{self}"
        members = [pid for pid, (_, session) in processes().items() if session in sessions]
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        for pid in [*members, self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=DEADLINE)
        self._finish()

    def _finish(self) -> None:
        for reader in self._readers:
            reader.join(timeout=10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _collect(self, stream: Iterator[str], lines: list[str]) -> None:
        for line in stream:
            with self._grown:
                lines.append(line)
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    def __str__(self) -> str:
        return "".join(["stdout:\n", *self.out, "stderr:\n", *self.err])


def processes() -> dict[int, tuple[int, int]]:
    """Parent and session of every process of this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # pid (command) state ppid pgrp session ...; the command may hold spaces.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    return found


def command_line(pid: int) -> bytes:
    """Arguments of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until_gone(pids: Sequence[int]) -> None:
    """Return once none of the processes is there."""
    deadline = time.monotonic() + DEADLINE
    while left := [pid for pid in pids if command_line(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
