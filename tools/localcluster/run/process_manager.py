"""The processes below one PID 1: started, started again when they end, and noted down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically
from localcluster.cluster import nodes
from localcluster.cluster.component import Component
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node

_READY_SECONDS = 300.0
_RESTART_SECONDS = 1.0
_ROUND_SECONDS = 0.2
GRACE_SECONDS = 3.0
"""For containerd's end in good order: its folder outlives the cluster. Nothing else gets any."""


@dataclass
class _Child:
    component: Component
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ended: str = ""
    not_before: float = field(default=0.0)


class ProcessManager:
    """Starts processes and keeps them running, but for those that are held.

    Parameters
    ----------
    node
        The node that they run on. What happens to them is noted in its status file.
    """

    def __init__(self, node: Node) -> None:
        self._logs, self._holds = node.cluster.logs, node.cluster.holds
        self._status_file = node.status_file
        self._children: dict[str, _Child] = {}
        self._stopping = False
        self._logs.mkdir(parents=True, exist_ok=True)
        self._holds.mkdir(exist_ok=True)
        self._write_status()  # an earlier one is of processes that have ended
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def keep(self) -> None:
        """Keep all running until SIGTERM."""
        while not self._stopping:
            self._tend()
            time.sleep(_ROUND_SECONDS)

    def start(self, component: Component) -> None:
        """Start a process, unless it is held."""
        self._children[component.name] = _Child(component)
        self._tend()

    def await_ready(self, component: Component) -> None:
        """Return when a process serves; SIGTERM ends the wait and this process.

        Raises
        ------
        ClusterError
            If it takes some minutes.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not component.ready():
            if self._stopping:
                raise SystemExit(0)
            if time.monotonic() > deadline:
                raise ClusterError(f"{component.name} is not ready after {_READY_SECONDS:.0f} s")
            self._tend()
            time.sleep(0.05)

    def pid(self, name: str) -> int | None:
        """Return the PID of a process, or None where it does not run."""
        child = self._children.get(name)
        return child.process.pid if child and child.process else None

    def end(self, name: str, pid: int | None, seconds: float) -> None:
        """Ask process `pid` to end, and wait until the one called `name` has.

        The two differ where a process that holds namespaces ends with the first one in them.
        """
        child = self._children.get(name)
        if child is None or child.process is None or pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(seconds)

    def _tend(self) -> None:
        """Collect what ended and start what should run; write the status where it changed."""
        changed = self._collect()
        now = time.monotonic()
        for child in self._children.values():
            held = (self._holds / child.component.name).exists()
            if child.process is not None:
                if held:
                    child.process.send_signal(child.component.ended_by)
            elif held:
                child.starts = 0  # who was ended on purpose does not keep ending
            elif now >= child.not_before:
                self._spawn(child)
                changed = True
        if changed:
            self._write_status()

    def _spawn(self, child: _Child) -> None:
        log = self._logs / f"{child.component.name}.log"
        with log.open("ab") as output:
            child.process = subprocess.Popen(
                child.component.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | child.component.environment,
                start_new_session=True,
            )
        child.starts += 1

    def _collect(self) -> bool:
        """Reap our own processes and, as PID 1, the orphans of others."""
        changed = False
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                child.ended = _in_words(child.process.returncode)
                child.process = None
                child.not_before = time.monotonic() + _RESTART_SECONDS
                changed = True
        ours = {child.process.pid for child in self._children.values() if child.process}
        while ended := _peek():
            if ended in ours:
                break  # ended since it was polled; the next round gets it
            os.waitpid(ended, 0)
        return changed

    def _write_status(self) -> None:
        status = {
            name: {
                "pid": child.process.pid if child.process else None,
                "starts": child.starts,
                "ended": child.ended,
            }
            for name, child in self._children.items()
        }
        write_atomically(self._status_file, json.dumps(status, indent=1))


def _peek() -> int:
    """Return the PID of an ended child that nobody has collected yet, or 0."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


def _in_words(returncode: int) -> str:
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def noted(cluster: Instance) -> dict[str, dict[str, Any]]:
    """Return what each PID 1 of a running cluster has noted of its processes.

    Each has `pid`, as its own PID namespace numbers it, or None where it does not run; `starts`,
    how often it was started; and `ended`, in words how it last did.
    """
    found = _read(nodes.first(cluster).status_file)
    for node in nodes.others(cluster):
        if found.get(node.machine, {}).get("pid") is not None:
            found |= _read(node.status_file)
    return found


def pid(cluster: Instance, name: str) -> int | None:
    """Return the noted PID of a process; None where it does not run or there is none."""
    found: int | None = noted(cluster).get(name, {}).get("pid")
    return found


def _read(status_file: Path) -> dict[str, dict[str, Any]]:
    with suppress(FileNotFoundError):
        read: dict[str, dict[str, Any]] = json.loads(status_file.read_text())
        return read
    return {}
