"""Output never decides: what can't be written is lost, and whoever wrote it goes on.

A log on a full disk, a reader that went away or a terminal that was closed is no reason for a
process to fail whose work is something else.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


class Unfailing:
    """A text stream that never raises where it can't be written to.

    Attributes
    ----------
    failure
        What was raised first; None while all went well.
    is_acknowledged
        Whether a caller has looked at `failure`: to report it, or to go on in spite of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: Exception | None = None
        self.is_acknowledged = False

    def write(self, text: str) -> int:
        """Write `text`, or lose it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # a closed stream raises ValueError
            self.failure = self.failure or error
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`, or lose it."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what is buffered, or lose it."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfailing(stream: TextIO, *, errors: str = "backslashreplace") -> TextIO:
    """Return `stream` so that writing to it never raises.

    Parameters
    ----------
    errors
        How characters are written that its encoding lacks: a name as for `codecs.register_error`.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)
    return cast(TextIO, Unfailing(stream))


def take_standard_streams() -> None:
    """Have nothing that this process prints make it fail, nor what it calls."""
    sys.stdout, sys.stderr = unfailing(sys.stdout), unfailing(sys.stderr)
