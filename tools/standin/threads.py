"""Threads that a supervisor takes for processes: they have pid, exit code and sentinel, and die."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from dtjob_api.ledger.privacy_ledger import LedgerStatus
from dtjob_trainer.ledger.backend import Ledger, Versioned

_KILLED = -9


class Killed(BaseException):
    """Raised in a thread that is dead already: nothing it does counts any more."""


class Exit(BaseException):
    """Ends a thread as a process would; `code` as `subprocess` has it, signals negative."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Life:
    """Whether a thread is to live on; whoever waits in it waits here.

    Attributes
    ----------
    ended
        A descriptor that becomes readable at the end, for those who wait for others too.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self.ended, end = os.pipe()
        self._close = weakref.finalize(self, os.close, end)
        weakref.finalize(self, os.close, self.ended)

    @property
    def over(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    def end(self) -> None:
        """End it; again and again without harm."""
        self._over.set()
        self._close()

    def check(self) -> None:
        """Raise `Killed` if it is over."""
        if self.over:
            raise Killed

    def sleep(self, seconds: float | None) -> None:
        """Sleep, for ever with None; `Killed` if it is over before."""
        if self._over.wait(seconds):
            raise Killed


class MortalLedger:
    """A ledger for a thread that may be dead: a killed process would not write either."""

    def __init__(self, ledger: Ledger, life: Life) -> None:
        self._ledger, self._life = ledger, life

    def read(self) -> Versioned:
        """See `Ledger.read`."""
        self._life.check()
        return self._ledger.read()

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        """See `Ledger.replace_status`."""
        self._life.check()
        return self._ledger.replace_status(versioned, status)

    def wait(self, version: str, timeout: float) -> Versioned | None:
        """See `Ledger.wait`."""
        self._life.check()
        return self._ledger.wait(version, timeout)


class ThreadChild:
    """A child of a supervisor (`dtjob_trainer.worker.processes.Child`) that is a thread of it.

    Its end is known at once when it is killed, while the thread itself may still be held up in a
    call; what it does then fails, or reaches nobody.
    """

    def __init__(self, name: str, body: Callable[[Life], int]) -> None:
        self._body, self._life = body, Life()
        self._lock = threading.Lock()
        self._code: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def pid(self) -> int | None:
        """The thread's own number, which no other thread of this machine has."""
        return self._thread.native_id

    @property
    def exitcode(self) -> int | None:
        """As `multiprocessing` has it; None while it lives."""
        return self._code

    @property
    def sentinel(self) -> int:
        """Readable at its end."""
        return self._life.ended

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._thread.ident is not None and self._code is None

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._end(_KILLED)

    def join(self) -> None:
        """Return at once: who asks has seen the sentinel, or has killed it."""

    def _run(self) -> None:
        code = 1
        try:
            code = self._body(self._life)
        except Killed:
            code = _KILLED
        except Exit as end:
            code = end.code
        finally:
            self._end(code)

    def _end(self, code: int) -> None:
        with self._lock:
            if self._code is None:
                self._code = code
        self._life.end()
