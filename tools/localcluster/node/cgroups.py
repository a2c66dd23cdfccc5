"""The cgroup below which all pods of a cluster run, in every hierarchy of the machine."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localcluster.base.errors import ClusterError


def hierarchies(mounts: str) -> list[Path]:
    """Return where cgroup hierarchies are mounted, given the text of `/proc/self/mounts`.

    Version 1 has several hierarchies and version 2 one; a machine may have both.
    """
    fields = [line.split() for line in mounts.splitlines()]
    return [Path(each[1]) for each in fields if each[2] in ("cgroup", "cgroup2")]


def _folders(name: str) -> Iterator[Path]:
    for hierarchy in hierarchies(Path("/proc/self/mounts").read_text()):
        yield hierarchy / name.lstrip("/")


def create(name: str) -> None:
    """Make the cgroup `name` in each hierarchy; the kubelet wants its root to be there."""
    for folder in _folders(name):
        folder.mkdir(exist_ok=True)
        for limit in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts a cgroup with none
            own, above = folder / limit, folder.parent / limit
            if own.exists() and above.exists() and not own.read_text().strip():
                own.write_text(above.read_text())


def remove(name: str, timeout: float = 120.0) -> None:
    """Remove the cgroup `name` and all below it from each hierarchy.

    The kernel refuses while a process of it is still on its way out; hence the patience.

    Raises
    ------
    ClusterError
        If a process is still in it after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    for folder in _folders(name):
        while folder.exists() and not _removed(folder):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the cgroup {folder} can't be removed: processes still run in it",
                    "End them, then run `down` again",
                )
            time.sleep(0.05)


def _removed(folder: Path) -> bool:
    for current, _, _ in os.walk(folder, topdown=False):
        try:
            with suppress(FileNotFoundError):
                Path(current).rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    return True
