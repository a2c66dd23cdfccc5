"""The standard output and error as `dtjob` writes to them, whatever they are.

An encoding may lack σ, a disk may be full, a reader may have left: none of it decides how a command
ends. Only a command that does nothing but print says by its exit code that it could not.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from dtjob_api import shown
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_trainer.process.streams import Unfailing, unfailing

SPELLED = {
    "σ": "sigma",
    "ε": "epsilon",
    "δ": "delta",
    "…": "...",
    "·": "-",
    "✓": "+",
    "−": "-",
    "–": "-",
    "≤": "<=",
    "≥": ">=",
    "×": "x",
    "→": "->",
    "⌈": "ceil(",
    "⌉": ")",
    "’": "'",
    "“": '"',
    "”": '"',
}
"""What stands for a character where the stream's encoding lacks it; others are shown as escapes."""

_ERRORS = "dtjob.spelled"


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (SPELLED.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(escaped), error.end


codecs.register_error(_ERRORS, _spell)


@contextmanager
def prepared() -> Iterator[None]:
    """Have everything that is printed in this block be printed as well as can be."""
    closed = _open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (unfailing(stream, errors=_ERRORS) for stream in before)
    if 1 in closed:
        cast(Unfailing, sys.stdout).failure = OSError(errno.EBADF, "it is closed")
    try:
        yield
    finally:
        _let_go(sys.stdout)
        _let_go(sys.stderr)
        sys.stdout, sys.stderr = before


def readable(text: str) -> str:
    """Return `text` on one line in characters of the standard output.

    Tables measure what is printed; and what a worker has written must not move the cursor.
    """
    encoding = sys.stdout.encoding or "utf-8"
    return shown.line(text).encode(encoding, _ERRORS).decode(encoding)


def encodes(encoding: str, text: str) -> bool:
    """Return whether `encoding` has the characters of `text`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def unprinted() -> str | None:
    """Return why the standard output lacks something; None if it is whole.

    A reader that has closed the pipe has had what it wanted.
    """
    stream = cast(object, sys.stdout)
    if not isinstance(stream, Unfailing):
        return None
    stream.is_acknowledged = True
    stream.flush()
    failure = stream.failure
    if failure is None or isinstance(failure, BrokenPipeError):
        return None
    return (failure.strerror if isinstance(failure, OSError) else None) or str(failure)


def check_printed() -> None:
    """End a command that has done nothing but print, if that failed.

    Raises
    ------
    CommandError
    """
    if why := unprinted():
        raise CommandError(
            ExitCode.REFUSED,
            "NotPrinted",
            f"the result could not be written to the standard output: {why}.",
            "Nothing was changed: send the output elsewhere, or make room, and run it again.",
        )


def check_printed_once() -> None:
    """End what is no command and has done nothing but print, such as help, if that failed.

    A command checks by itself: what it has done may outweigh what it could not print.

    Raises
    ------
    CommandError
    """
    if not getattr(sys.stdout, "is_acknowledged", True):
        check_printed()


def _open_missing() -> set[int]:
    """Give a process without standard streams ones that lead nowhere; return which it lacked.

    Else the next file that it opens would be one, and what libraries print would go into it.
    """
    missing = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(nowhere, True)
            missing.add(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    return missing


def _let_go(stream: TextIO) -> None:
    """Write what is left; what can't be written must not trouble the interpreter's own end."""
    stream.flush()
    if isinstance(cast(object, stream), Unfailing) and cast(Unfailing, stream).failure:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
