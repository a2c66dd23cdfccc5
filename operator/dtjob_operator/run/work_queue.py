"""Keys to reconcile: each once however often it is added, never twice at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from dtjob_operator.kube.store import Key

FIRST_BACKOFF, LONGEST_BACKOFF = 0.05, 15.0
#: What comes within this time after `gather` is worked on together.
GATHER_SECONDS = 0.2
# Work takes milliseconds, unless what the API server asks for a write does not answer, such as a
# namespace's webhook: the next write there will take as long.
_SLOW_SECONDS, _SLOW_FOR_SECONDS = 2.0, 60.0
_KEPT_FREE = 2

Work = Callable[[Key], Awaitable[float | None]]
"""Works on a key; returns after how many seconds it wants to be called again, None: on news only.
What it raises is its own to log; the queue only brings the key back."""


class WorkQueue:
    """A queue in the manner of client-go's, for one event loop.

    A key that is added while it is being worked on is worked on again afterwards. A key whose
    work failed comes back after a pause that doubles with each failure in a row, up to 15 s.

    Namespaces in which work takes long leave some of the places for work to the others.
    """

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()
        self._wanted: set[Key] = set()
        self._running: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._gathered: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._slow_until: dict[str, float] = {}
        self._slow_running: set[Key] = set()
        self._held: deque[Key] = deque()
        self._closed = False
        self._stepped = time.monotonic()

    def __len__(self) -> int:
        """Keys that want work now or in a moment, or are being worked on."""
        return len(self._wanted | self._running | self._gathered.keys())

    def stalled_seconds(self) -> float:
        """How long no work has begun or ended though there is some; 0 where there is none."""
        return time.monotonic() - self._stepped if len(self) else 0.0

    def add(self, key: Key) -> None:
        """Ask for work on a key as soon as possible."""
        if key in self._wanted or self._closed:
            return
        if not len(self):
            self._stepped = time.monotonic()
        self._cancel(key, self._gathered)
        self._wanted.add(key)
        if key not in self._running:
            self._ready.put_nowait(key)

    def gather(self, key: Key) -> None:
        """Ask for work on a key in a moment, with what else comes until then.

        Pods come up in dozens of steps, of which each would cost a look at all of them.
        """
        if key in self._wanted or key in self._gathered or self._closed:
            return
        if not len(self):
            self._stepped = time.monotonic()
        loop = asyncio.get_running_loop()
        self._gathered[key] = loop.call_later(GATHER_SECONDS, self.add, key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for work on a key at a later time, in place of what was asked for before."""
        if self._closed:
            return
        self._cancel(key, self._later)
        loop = asyncio.get_running_loop()
        self._later[key] = loop.call_later(seconds, self._due, key)

    async def run(self, work: Work, concurrency: int) -> None:
        """Work on keys until `close`, then finish those that are being worked on."""
        self._stepped = time.monotonic()
        most_slow = max(1, concurrency - _KEPT_FREE)
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work_on_keys(work, most_slow))

    def close(self) -> None:
        """Take no more keys and let `run` end."""
        self._closed = True
        for timers in (self._later, self._gathered):
            for key in list(timers):
                self._cancel(key, timers)
        self._ready.put_nowait(None)

    async def _work_on_keys(self, work: Work, most_slow: int) -> None:
        while (key := await self._ready.get()) is not None and not self._closed:
            if self._is_slow(key[0]):
                if len(self._slow_running) >= most_slow:
                    self._held.append(key)
                    continue
                self._slow_running.add(key)
            began = time.monotonic()
            self._wanted.discard(key)
            self._running.add(key)
            self._stepped = time.monotonic()
            self._cancel(key, self._later)
            try:
                again = await work(key)
                self._failures.pop(key, None)
            except Exception:
                again = self._backoff(key)
            self._running.discard(key)
            self._stepped = time.monotonic()
            if self._stepped - began > _SLOW_SECONDS:
                self._slow_until[key[0]] = self._stepped + _SLOW_FOR_SECONDS
            if key in self._slow_running:
                self._slow_running.discard(key)
                if self._held:
                    self._ready.put_nowait(self._held.popleft())
            if key in self._wanted:
                self._ready.put_nowait(key)
            if again is not None:
                self.add_after(key, again)
        self._ready.put_nowait(None)  # for the next task

    def _is_slow(self, namespace: str) -> bool:
        if (until := self._slow_until.get(namespace)) is None:
            return False
        if time.monotonic() >= until:
            del self._slow_until[namespace]
            return False
        return True

    def _backoff(self, key: Key) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(FIRST_BACKOFF * 2.0 ** min(failures, 30), LONGEST_BACKOFF)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311

    def _due(self, key: Key) -> None:
        del self._later[key]
        self.add(key)

    def _cancel(self, key: Key, timers: dict[Key, asyncio.TimerHandle]) -> None:
        if handle := timers.pop(key, None):
            handle.cancel()
