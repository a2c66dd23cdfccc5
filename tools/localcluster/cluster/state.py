"""What is remembered of a cluster between commands.

The state folder of a cluster holds its record (`record.json`) and everything that its processes
write. A process is known by its PID *and* its start time, so that a recycled PID is never
taken for one of ours.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically


@dataclass(frozen=True)
class Process:
    """A process of the machine, recognisable after its PID was recycled.

    Parameters
    ----------
    pid
        As the machine's first PID namespace numbers it.
    start_ticks
        Field 22 of `/proc/<pid>/stat`: clock ticks from boot to its start.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the identity of the running process `pid`.

        Raises
        ------
        ProcessLookupError
            If there is none.
        """
        text = _stat(pid)
        if text is None:
            raise ProcessLookupError(pid)
        return cls.parse(text)

    @classmethod
    def parse(cls, stat: str) -> Self:
        """Return the identity in the text of a `/proc/<pid>/stat`."""
        return cls(int(stat.split(maxsplit=1)[0]), int(_after_name(stat)[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        text = _stat(self.pid)
        return text is not None and _after_name(text)[0] != "Z" and self.parse(text) == self

    def await_end(self, seconds: float) -> None:
        """Return when it has ended, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, which can't reach another process whatever became of the PID.

        Raises
        ------
        ProcessLookupError
            If the process has ended.
        """
        handle = os.pidfd_open(self.pid)
        try:
            if not self.alive:
                raise ProcessLookupError(self.pid)
            signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _stat(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _after_name(stat: str) -> list[str]:
    """Return the fields from the third (state) on; the second, the name, may hold anything."""
    return stat[stat.rindex(")") + 2 :].split()


def boot_id() -> str:
    """Return what tells this boot of the machine from every other one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Record:
    """What `up` writes down, each part before it changes anything on the machine.

    Parameters
    ----------
    slot
        Which of the address blocks the cluster uses (see `localcluster.cluster.instance`).
    boot
        The boot of the machine that it was started in.
    linked
        Whether `up` came as far as linking the cluster with the machine; from there on the
        cluster's daemon needs nobody.
    nodes
        How many nodes the cluster has.
    holder
        The process whose end ends the whole cluster, as it wrote itself down; None before.
    """

    slot: int
    boot: str
    linked: bool = False
    nodes: int = 1
    holder: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the cluster's processes are there."""
        return self.holder is not None and self.boot == boot_id() and self.holder.alive


def holder_file(folder: Path) -> Path:
    """Return where the holder leaves a copy of its `/proc/<pid>/stat`."""
    return folder / "holder"


def read_record(folder: Path) -> Record | None:
    """Return the record in a state folder, or None where there is none.

    Raises
    ------
    ClusterError
        If the record can't be understood.
    """
    path = folder / "record.json"
    try:
        read = json.loads(path.read_text())
        holder = None
        if holder_file(folder).exists():
            holder = Process.parse(holder_file(folder).read_text())
        return Record(
            slot=read["slot"],
            boot=read["boot"],
            linked=read["linked"],
            nodes=read.get("nodes", 1),  # before there were two, nobody wrote how many
            holder=holder,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ClusterError(
            f"{path} is not a record of a cluster: {error}",
            "Another version of this tool may have written it: end that cluster with it, or remove "
            "the folder after checking that none of its processes runs",
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Replace the record in a state folder; the holder writes itself down."""
    fields = {
        "slot": record.slot,
        "boot": record.boot,
        "linked": record.linked,
        "nodes": record.nodes,
    }
    write_atomically(folder / "record.json", json.dumps(fields))
