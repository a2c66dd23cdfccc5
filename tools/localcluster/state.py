"""What is remembered of a cluster between commands, and who may change it.

The state folder of a cluster holds its record (``record.json``), a lock and everything its
processes write. A process is known by its PID *and* its start time, so that a recycled PID is never
taken for one of ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from localcluster.errors import ClusterError


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by a file with `text` such that a reader sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(
    path: Path, *, timeout: float, holder: str, tell: Callable[[str], None]
) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; it ends with the process that holds it.

    Parameters
    ----------
    path
        The file; whoever holds it writes its PID there.
    timeout
        Seconds to wait for another holder.
    holder
        What a holder does, e.g. ``"building images"``.
    tell
        Gets a line, once, where there is somebody to wait for.

    Raises
    ------
    ClusterError
        If another process holds it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with path.open("a+") as file:
        told = False
        while not _taken(file):
            other = f"another process ({_written(file)})"
            if not told:
                tell(f"  waiting for {other}, which is {holder}")
                told = True
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{other} has been {holder} for {timeout:.0f} s ({path} is locked)",
                    "Wait for it or end it, then try again",
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"PID {os.getpid()}")
        file.flush()
        yield


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "of unknown PID"


@dataclass(frozen=True)
class Process:
    """A process of the machine, recognisable after its PID was recycled.

    Parameters
    ----------
    pid
        As the machine's first PID namespace numbers it.
    start_ticks
        Field 22 of ``/proc/<pid>/stat``: clock ticks from boot to its start.
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
        """Return the identity in the text of a ``/proc/<pid>/stat``."""
        return cls(int(stat.split(maxsplit=1)[0]), int(_after_name(stat)[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        text = _stat(self.pid)
        return text is not None and _after_name(text)[0] != "Z" and self.parse(text) == self

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
    """What ``up`` writes down, each part before it changes anything on the machine.

    Parameters
    ----------
    slot
        Which of the address blocks the cluster uses (see :mod:`localcluster.instance`).
    boot
        The boot of the machine that it was started in.
    linked
        Whether ``up`` came as far as linking the cluster with the machine; from there on the
        cluster's daemon needs nobody.
    holder
        The process whose end ends the whole cluster, as it wrote itself down; None before.
    """

    slot: int
    boot: str
    linked: bool = False
    holder: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the cluster's processes are there."""
        return self.holder is not None and self.boot == boot_id() and self.holder.alive


def holder_file(folder: Path) -> Path:
    """Return where the holder leaves a copy of its ``/proc/<pid>/stat``."""
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
        return Record(slot=read["slot"], boot=read["boot"], linked=read["linked"], holder=holder)
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
    kept = {"slot": record.slot, "boot": record.boot, "linked": record.linked}
    write_atomically(folder / "record.json", json.dumps(kept))
