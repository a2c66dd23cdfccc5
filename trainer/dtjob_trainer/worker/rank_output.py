"""What a rank's process prints, on descriptors 1 and 2: shown as the worker's own, and kept.

Each rank has a pipe of its own, read by a thread of its own: where the worker's log takes nothing
(a slow container runtime, say), that holds up the ranks that print, as if they wrote to it
themselves, and not the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TextIO

#: How long the last words of a rank are waited for: what it has started may hold the pipe for ever.
_LAST_WORDS_SECONDS = 1.0
_CHUNK = 64 << 10


class RankOutput:
    """The output of one rank process.

    Parameters
    ----------
    keep
        Called with all that is read, in a thread; never waits.

    A block of it has the end that the process is started with (see `take_over`); it is read from
    the end of the block on.
    """

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._keep = keep
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Connection:
        return self._writer

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._thread.start()

    async def last_words(self) -> None:
        """Return when all is read that a rank, which has ended, has printed."""
        await asyncio.to_thread(self._thread.join, _LAST_WORDS_SECONDS)

    def _read(self) -> None:
        with self._reader:
            held = b""
            while chunk := os.read(self._reader.fileno(), _CHUNK):
                whole, held = _lines(held + chunk, is_cut=len(chunk) == _CHUNK)
                self._pass_on(whole)
            self._pass_on(held)

    def _pass_on(self, text: bytes) -> None:
        if not text:
            return
        # One write a line, as the rank made it: no line of the supervisor's comes in between.
        for line in text.splitlines(keepends=True):
            show(line)
        self._keep(text)


def _lines(text: bytes, *, is_cut: bool) -> tuple[bytes, bytes]:
    """What is shown now, and the beginning of a line whose rest is still in the pipe."""
    end = text.rfind(b"\n") + 1
    return (text[:end], text[end:]) if is_cut and end else (text, b"")


def show(text: bytes) -> None:
    """Write to this process's standard error, or lose it."""
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(2, text) :]


def take_over(child_end: Connection) -> None:
    """Have all that this process prints from now on go to its supervisor, line by line.

    Python's own streams are made anew: those that were made for a file would seek in the pipe.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with child_end:
        os.dup2(child_end.fileno(), 1)
        os.dup2(child_end.fileno(), 2)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, before: TextIO) -> TextIO:
    return io.TextIOWrapper(
        open(descriptor, "wb", closefd=False),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=True,
    )
