"""How long this machine ran: times in which it, or its disk, stood still do not count.

What the product promises within seconds it can only keep on a machine that runs. A thread looks at
the clock and writes to the disk all the time; where that took far longer than it should, nothing
else went on either.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time

_EVERY_SECONDS = 0.2
_LONG_SECONDS = 0.5
_pauses: list[tuple[float, float]] = []
_began = threading.Event()


def ran(since: float, until: float) -> float:
    """Seconds between two times of `time.time()` in which this machine did not stand still."""
    stood = sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in list(_pauses))
    return until - since - stood


def begin() -> None:
    """Take note of every standstill from now on."""
    if not _began.is_set():
        _began.set()
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    # On a disk, as etcd is: /tmp may be memory.
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        while True:
            before = time.time()
            time.sleep(_EVERY_SECONDS)
            os.pwrite(file.fileno(), b"x", 0)
            os.fdatasync(file.fileno())
            now = time.time()
            if now - before > _EVERY_SECONDS + _LONG_SECONDS:
                _pauses.append((before + _EVERY_SECONDS, now))
