"""What `dtjob run` makes of errors of the operating system: the message names what it is about."""

from __future__ import annotations

import errno
import os

import pytest

from dtjob_cli.commands import run as command
from dtjob_cli.errors import ExitCode


def _raised(number: int, file: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), file)


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (_raised(errno.EACCES, "/runs/digits/lock"), "RunDirectory", "/runs/digits/lock: Perm"),
        (_raised(errno.ENOSPC), "RunDirectory", "the run directory: No space left"),
        (_raised(errno.EAGAIN), "System", "Resource temporarily unavailable"),
        (_raised(errno.ENOMEM), "System", "Cannot allocate memory"),
        (_raised(errno.EMFILE), "System", "Too many open files"),
    ],
)
def test_an_error_of_the_system_is_not_blamed_on_the_run_directory(
    error: OSError, reason: str, words: str
) -> None:
    refused = command.refused(error)

    assert (refused.exit_code, refused.reason) == (ExitCode.REFUSED, reason)
    assert words in refused.message
    assert "--resume" in refused.remedy
