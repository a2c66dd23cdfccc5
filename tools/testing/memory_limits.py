"""Processes below a memory limit of their own, as a container has one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtjob_trainer.process import memory_group


@contextmanager
def limited(bytes_: int) -> Iterator[Path]:
    """Make a memory cgroup below this process's own; whose id is written to the yielded file
    is in it.
    """
    parent, version = memory_group.folder(Path("/proc/self"))
    group = parent / f"dtjob-test-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    try:
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        (group / name).write_text(str(bytes_))
        yield group / "cgroup.procs"
    finally:
        deadline = time.monotonic() + 30
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


def obstacle() -> str | None:
    """Why this machine can't have one."""
    try:
        with limited(2**30):
            return None
    except (OSError, LookupError, ValueError) as error:
        return f"no memory cgroup can be made here ({error})"
