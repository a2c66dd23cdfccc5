"""What ranks of a worker have printed and the coordinator has not taken yet: bounded, in memory."""

from __future__ import annotations

import threading
from collections import Counter, deque

from dtjob_api.wire.gang import LogPart
from dtjob_trainer.retention.log_budget import LogKey

#: Bytes that wait in a worker, of all its ranks: a coordinator that is slow costs no more memory.
BACKLOG_BYTES = 2 << 20
#: Bytes of a part: as base64 they fit into the body of a request.
PART_BYTES = 32 << 10


class Backlog:
    """What waits, in order. What has no room takes the place of what is older.

    Threads put in what they read, and none of them ever waits.

    Parameters
    ----------
    position
        The worker's.
    limit
        Bytes in all. Beyond them the rank that has most loses its oldest.
    """

    def __init__(self, position: int, limit: int = BACKLOG_BYTES) -> None:
        self._position, self._limit = position, limit
        self._lock = threading.Lock()
        self._waiting: dict[LogKey, deque[bytes]] = {}
        self._bytes: Counter[LogKey] = Counter()
        self._dropped: Counter[LogKey] = Counter()
        self._numbers: Counter[LogKey] = Counter()
        self._part: LogPart | None = None

    def put(self, key: LogKey, data: bytes) -> None:
        """Have more of a rank's output wait."""
        with self._lock:
            self._waiting.setdefault(key, deque()).append(data)
            self._bytes[key] += len(data)
            while self._bytes.total() > self._limit:
                self._drop_from(max(self._bytes, key=lambda each: self._bytes[each]))

    def part(self) -> LogPart | None:
        """The next part to be taken, the same one until `taken`; None where nothing waits."""
        with self._lock:
            if self._part is None:
                key = next((key for key, data in self._waiting.items() if data), None)
                self._part = self._cut(key) if key is not None else None
            return self._part

    def taken(self) -> None:
        """The part has been taken, or will never be."""
        with self._lock:
            self._part = None

    def _drop_from(self, key: LogKey) -> None:
        oldest = self._waiting[key].popleft()
        self._bytes[key] -= len(oldest)
        self._dropped[key] += len(oldest)

    def _cut(self, key: LogKey) -> LogPart:
        waiting, data = self._waiting.pop(key), bytearray()
        while waiting and len(data) < PART_BYTES:
            data += waiting.popleft()
        if left := bytes(data[PART_BYTES:]):
            waiting.appendleft(left)
        if waiting:
            self._waiting[key] = waiting  # behind the other ranks
        part = LogPart(
            position=self._position,
            attempt=key.attempt,
            rank=key.rank,
            number=self._numbers[key],
            dropped=self._dropped.pop(key, 0),
            data=bytes(data[:PART_BYTES]),
        )
        self._bytes[key] -= len(part.data)
        self._numbers[key] += 1
        return part
