"""What `dtjob run` makes of errors of the operating system: the message names what it is about."""

from __future__ import annotations

import errno
import os

import pytest
from stored import EXAMPLE
from typer.testing import CliRunner

from dtjob_cli.commands import run as command
from dtjob_cli.errors import ExitCode
from dtjob_cli.main import app


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


@pytest.mark.parametrize("option", ["--dir", "--data"])
def test_a_place_whose_name_is_no_text_is_refused_before_anything_is_made(option: str) -> None:
    result = CliRunner().invoke(app, ["run", str(EXAMPLE), option, os.fsdecode(b"/r\xffns")])

    assert result.exit_code == 2
    assert "PathNotText" in result.stderr
    assert f"{option} /r\\udcffns" in result.stderr
    assert "LC_ALL" in result.stderr
