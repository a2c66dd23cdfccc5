"""How a command fails: an exit code, a reason, one message and its remedy; never a traceback."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dtjob_api.shown import line


class ExitCode(enum.IntEnum):
    """The exit codes of `dtjob`, as its help documents them."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    ENDED_EARLY = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """An end of a command other than success.

    Attributes
    ----------
    exit_code
        What the process exits with.
    reason
        A CamelCase word for programs, such as `PortInUse`.
    message
        What is wrong, and where.
    remedy
        What to do about it; empty when the message says it.
    """

    def __init__(self, exit_code: ExitCode, reason: str, message: str, remedy: str = "") -> None:
        self.exit_code = exit_code
        self.reason = reason
        self.message = message
        self.remedy = remedy
        super().__init__(message)


class BadInput(CommandError):
    """Something that the user gave can't be used as it is."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(ExitCode.BAD_INPUT, reason, message, remedy)


@contextmanager
def shown(*, as_json: bool) -> Iterator[None]:
    """Print a `CommandError` and exit with its code.

    For people on the standard error; for programs as one object on the standard output.
    """
    try:
        yield
    except CommandError as error:
        if as_json:
            problem = {"reason": error.reason, "message": error.message, "remedy": error.remedy}
            sys.stdout.write(json.dumps({"error": problem, "exitCode": error.exit_code}) + "\n")
            sys.stdout.flush()
        # What the standard output did not take may still be read there.
        if not as_json or getattr(sys.stdout, "failure", None):
            stopped = error.exit_code is ExitCode.INTERRUPTED
            head = "" if stopped else f"error ({error.reason}): "
            sys.stderr.write(f"{head}{_lines(error.message)}\n")
            if error.remedy:
                sys.stderr.write(f"{_lines(error.remedy)}\n")
        sys.exit(error.exit_code)


def then(command: str) -> str:
    """Return the end of a remedy: by what a user goes on once it is carried out."""
    return f"then go on with:  {command}"


def _lines(text: str) -> str:
    """Return `text` as a terminal may have it: some of it is a worker's.

    What follows its first line is indented, so that no line of it reads as one of ours.
    """
    shown = [printable for part in text.split("\n") if (printable := line(part).rstrip())]
    indent = "" if all(printable.startswith("  ") for printable in shown[1:]) else "  "
    return "\n".join([*shown[:1], *(indent + printable for printable in shown[1:])])
