"""A rank's side of the pipe to its supervisor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.pipe import Drain, Epsilon, FromRank, Progress, RankEnd, ToRank
from dtjob_api.wire.worker_report import WorkerState

#: Progress goes out at most this often; a stage goes out at once.
_PROGRESS_SECONDS = 0.2
#: While the rank waits for something outside of it, it reports so this often.
_BEAT_SECONDS = 1.0
_MAX_MESSAGE = 1024


class Mailbox:
    """Sends snapshots, receives orders. Snapshots hold nothing of the data (Rule 19)."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._progress = Progress()
        self._sent = 0.0
        self._drain = False
        self._epsilon: dict[int, str] = {}

    def stage(
        self, stage: str, *, state: WorkerState = WorkerState.STARTING, **fields: Any
    ) -> None:
        """Say what this rank is at; sent at once."""
        self._progress = replace(self._progress, **fields, stage=stage, state=state)
        self._tell()

    def progress(self, *, at_once: bool = False, **fields: Any) -> None:
        """Note figures; sent at intervals unless they are to go at once."""
        self._progress = replace(self._progress, **fields)
        if at_once or time.monotonic() - self._sent >= _PROGRESS_SECONDS:
            self._tell()

    @contextlib.contextmanager
    def waiting(self, stage: str, *, state: WorkerState) -> Iterator[None]:
        """Beat while something outside is waited for: a slow ledger is no stalled step."""
        before = self._progress
        self._progress = replace(before, stage=stage, state=state)
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT_SECONDS):
                self._tell()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._progress = replace(self._progress, stage=before.stage, state=before.state)

    def drain_ordered(self) -> bool:
        """Whether the supervisor asked for an orderly stop."""
        self._read(0)
        return self._drain

    def epsilon(self, charged: int, timeout: float) -> str | None:
        """Epsilon of `charged` draws once the supervisor has sent it; None after the timeout."""
        deadline = time.monotonic() + timeout
        while charged not in self._epsilon and (left := deadline - time.monotonic()) > 0:
            self._read(left)
        return self._epsilon.get(charged)

    def end(self, kind: EndKind, reason: Reason, message: str = "") -> None:
        """Send how this rank ends: its last message."""
        with contextlib.suppress(OSError):
            self._send(RankEnd(kind, reason, shortened(message)))

    def _read(self, timeout: float) -> None:
        while self._pipe.poll(timeout):
            message: ToRank = self._pipe.recv()
            match message:
                case Drain():
                    self._drain = True
                case Epsilon(charged, value):
                    self._epsilon[charged] = value
            timeout = 0

    def _tell(self) -> None:
        self._sent = time.monotonic()
        self._send(self._progress)

    def _send(self, message: FromRank) -> None:
        with self._lock:
            self._pipe.send(message)


def shortened(message: str) -> str:
    """Fit a message into the ledger: its beginning names the place, its end the fault."""
    if len(message) <= _MAX_MESSAGE:
        return message
    head, gap = _MAX_MESSAGE // 4, " … "
    return message[:head] + gap + message[-(_MAX_MESSAGE - head - len(gap)) :]
