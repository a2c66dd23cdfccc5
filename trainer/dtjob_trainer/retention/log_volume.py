"""The logs of a job's ranks on its checkpoint volume: `logs/<attempt>/rank-<n>.log`.

Nothing depends on them. So they are written without a promise, a write that fails is dropped and
counted, and whoever needs their room for a checkpoint takes it (`dtjob_trainer.ledger.room`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dtjob_trainer.retention import log_budget
from dtjob_trainer.retention.log_budget import LogKey

FOLDER = "logs"
#: Held by whoever takes the logs' room: nothing is added meanwhile.
_LOCK = ".lock"
_FILE = re.compile(r"rank-(0|[1-9][0-9]{0,9})\.log")
_ATTEMPT = re.compile(r"[1-9][0-9]{0,9}")
#: What logs leave free on the volume: the journal's next lines are worth more.
SPARED_BYTES = 1 << 20
#: What the system says of a volume that is full.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def log_path(state_dir: Path, key: LogKey) -> Path:
    """Where a rank's log of an attempt lies."""
    return state_dir / FOLDER / str(key.attempt) / f"rank-{key.rank}.log"


def sizes(state_dir: Path) -> dict[LogKey, int]:
    """Bytes of each log that is kept; of a volume without logs none.

    Raises
    ------
    OSError
        It can't be looked at.
    """
    found = {}
    for folder in _entries(state_dir / FOLDER):
        if not _ATTEMPT.fullmatch(folder.name):
            continue
        for file in _entries(folder):
            if match := _FILE.fullmatch(file.name):
                with contextlib.suppress(FileNotFoundError):
                    key = LogKey(int(folder.name), int(match.group(1)))
                    found[key] = file.stat().st_size
    return found


def remove(state_dir: Path, attempt: int) -> None:
    """Remove the logs of an attempt, as far as the volume lets it."""
    shutil.rmtree(state_dir / FOLDER / str(attempt), ignore_errors=True)


@contextlib.contextmanager
def closed(state_dir: Path) -> Iterator[None]:
    """Have nobody add to the logs within the block."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # there are no logs, or the volume takes no lock
            held.enter_context(_locked(state_dir, fcntl.LOCK_EX))
        yield


@contextlib.contextmanager
def _locked(state_dir: Path, how: int) -> Iterator[None]:
    path = state_dir / FOLDER / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise
            # A file system without locks: what is added meanwhile may have to go, too.
        yield
    finally:
        os.close(descriptor)


class LogVolume:
    """Adds to the logs within the job's bound.

    Parameters
    ----------
    state_dir
        The checkpoint volume.
    limit
        Bytes of all logs together.

    Attributes
    ----------
    dropped
        Bytes that a log lacks, until a line in it has said so.
    """

    def __init__(self, state_dir: Path, limit: int) -> None:
        self._state_dir, self._limit = state_dir, limit
        self._sizes: dict[LogKey, int] | None = None
        self.dropped: Counter[LogKey] = Counter()

    def add(self, key: LogKey, data: bytes, *, ranks: int, dropped: int = 0) -> None:
        """Add to a log, or drop it: where the job's bound or the volume has no room.

        Parameters
        ----------
        ranks
            Ranks of the attempt.
        dropped
            Bytes before `data` that were lost on the way.
        """
        self.dropped[key] += dropped
        try:
            (self._state_dir / FOLDER).mkdir(exist_ok=True)
            with _locked(self._state_dir, fcntl.LOCK_SH | fcntl.LOCK_NB):
                self._add(key, data, ranks)
        except OSError:
            self._sizes = None  # looked at anew, whatever of it is there
            self.dropped[key] += len(data)

    def _add(self, key: LogKey, data: bytes, ranks: int) -> None:
        path = log_path(self._state_dir, key)
        if self._sizes is None or (self._sizes.get(key) and not path.exists()):
            self._sizes = sizes(self._state_dir)
        mark = _mark("dropped", self.dropped[key]) if self.dropped[key] else b""
        text = mark + data
        decided = log_budget.decide(self._sizes, key, len(text), limit=self._limit, ranks=ranks)
        for attempt in decided.removes:
            self._remove(attempt)
        if not decided.takes:
            self.dropped[key] += len(data)
            return
        path.parent.mkdir(exist_ok=True)
        if decided.keeps is not None:
            _cut(path, decided.keeps, len(text) - decided.takes)
        self._append(path, text[-decided.takes :], key.attempt)
        self._sizes[key] = path.stat().st_size
        self.dropped.pop(key, None)

    def _append(self, path: Path, data: bytes, attempt: int) -> None:
        """Add to a file; where the volume is full, earlier attempts' logs go, the oldest first."""
        assert self._sizes is not None
        earlier = sorted({at.attempt for at in self._sizes if at.attempt < attempt})
        while True:
            try:
                return _append(path, data)
            except OSError as error:
                if error.errno not in NO_ROOM or not earlier:
                    raise
                self._remove(earlier.pop(0))

    def _remove(self, attempt: int) -> None:
        assert self._sizes is not None
        remove(self._state_dir, attempt)
        self._sizes = {at: size for at, size in self._sizes.items() if at.attempt != attempt}


def _mark(what: str, size: int) -> bytes:
    """A line of our own: JSON, as those of a rank."""
    line = {"component": "logs", "level": "warning", "message": what, "bytes": size}
    return json.dumps(line).encode() + b"\n"


def _cut(path: Path, keeps: int, dropped: int) -> None:
    """Leave of a file its last bytes, from the beginning of a line on, after a line that says so.

    `dropped` bytes of what comes next are not written.
    """
    before = path.read_bytes() if path.exists() else b""
    after = before[len(before) - keeps :] if keeps else b""
    if len(after) < len(before):
        after = after.partition(b"\n")[2]
    path.write_bytes(_mark("cut", len(before) - len(after) + dropped) + after)


def _append(path: Path, data: bytes) -> None:
    """Add all of `data` or nothing."""
    figures = os.statvfs(path.parent)
    if figures.f_bavail * figures.f_frsize < len(data) + SPARED_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        before, rest = os.fstat(descriptor).st_size, memoryview(data)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
