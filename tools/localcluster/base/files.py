"""Files that several processes read and write: replaced whole, and locked."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from localcluster.base.errors import ClusterError

_PID_SECONDS = 2.0


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
        What a holder does, e.g. `"building images"`.
    tell
        Gets a line, once, where there is somebody to wait for.

    Raises
    ------
    ClusterError
        If another process holds it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        began, announced = time.monotonic(), False
        while not _taken(file):
            written = _written(file)
            other = f"another process ({written or 'of unknown PID'})"
            # A holder writes its PID right after it has taken the lock.
            if not announced and (written or time.monotonic() > began + _PID_SECONDS):
                tell(f"  waiting for {other}, which is {holder}")
                announced = True
            if time.monotonic() > began + timeout:
                raise ClusterError(
                    f"{other} has been {holder} for {timeout:.0f} s ({path} is locked)",
                    "Wait for it or end it, then try again",
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"PID {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # so that nobody takes this process for the next holder


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
