"""The operator as a process of this machine, under its own account, and what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scale.control_plane import OPERATOR_NAMESPACE

PORT = 8081
"""Of probes and metrics: the workers' port is taken by those who play them."""
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Usage:
    """What a process has taken since its start: CPU in seconds, peak of resident memory in MiB."""

    cpu: float
    peak: float


class OperatorProcess:
    """One run of `python -m dtjob_operator`."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._log = log
        argv = [sys.executable, "-m", "dtjob_operator"]
        argv += [f"--namespace={OPERATOR_NAMESPACE}", f"--port={PORT}"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                env=os.environ | {"KUBECONFIG": str(kubeconfig)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._started = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        if self._process.poll() is not None:
            raise SystemExit(f"the operator has ended: {self._log.read_text()[-3000:]}")
        if time.monotonic() > self._started + _START_SECONDS:
            raise SystemExit(f"the operator is not ready: {self._log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def usage(self) -> Usage:
        """Of the operator itself."""
        return _usage(self._process.pid)

    def helpers_usage(self) -> Usage:
        """Of the processes that it has started: the accountant's."""
        found = [_usage(pid) for pid in _descendants(self._process.pid)]
        return Usage(sum(each.cpu for each in found), sum(each.peak for each in found))

    def stop(self) -> None:
        """SIGTERM, as at an upgrade: what is under way is finished, and the Lease given back."""
        self._process.terminate()
        self._process.wait(_STOP_SECONDS)


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


def _usage(pid: int) -> Usage:
    folder = Path(f"/proc/{pid}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    lines = (folder / "status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, peak / 1024)
