"""Ctrl-C and its relatives: raised, or counted where a run is to stop at a step boundary."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dtjob_cli.errors import CommandError, ExitCode

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """How often this process was asked to stop."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Count one; a signal handler."""
        self.count += 1

    def check(self, message: str) -> None:
        """End the command here, before it does what was not wanted any more.

        Raises
        ------
        CommandError
            With `message` and exit code 130, if this process was asked to stop.
        """
        if self.count:
            raise CommandError(ExitCode.INTERRUPTED, "Interrupted", message)


def raise_all() -> None:
    """Have each end a command as Ctrl-C does, with exit code 130, and put away what it has begun.

    Left to the kernel, some would be dropped: those for which PID 1 of a container has no handler.
    One that is ignored already stays so.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def counted() -> Iterator[Interrupts]:
    """Count SIGINT, SIGTERM and SIGHUP from here to the end of the block.

    One that is ignored already stays so, as `nohup` wants it.
    """
    interrupts = Interrupts()
    before = {
        number: signal.signal(number, interrupts.note)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
