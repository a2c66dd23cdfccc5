"""How an error looks on a terminal."""

from __future__ import annotations

import json

import pytest

from dtjob_cli import errors
from dtjob_cli.errors import BadInput

TRACEBACK = 'Traceback:\n  File "task.py", line 3, in model\n    return net()\n           ^^^^^'


def told(capsys: pytest.CaptureFixture[str], error: BadInput, *, as_json: bool = False) -> str:
    with pytest.raises(SystemExit), errors.shown(as_json=as_json):
        raise error
    printed = capsys.readouterr()
    return printed.out if as_json else printed.err


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is indented: none reads as one of dtjob's own."""
    shown = told(capsys, BadInput("Some", f"the task raised\n{TRACEBACK}", "Correct it."))
    assert shown == (
        "error (Some): the task raised\n"
        "  Traceback:\n"
        '    File "task.py", line 3, in model\n'
        "      return net()\n"
        "             ^^^^^\n"
        "Correct it.\n"
    )


def test_a_list_is_indented_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, BadInput("Some", "not valid:\n  spec.a: wrong\n  spec.b: wrong"))
    assert shown == "error (Some): not valid:\n  spec.a: wrong\n  spec.b: wrong\n"


def test_no_text_writes_a_line_of_dtjobs_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = "oh\r\n\nerror (Other): no\x1b[1A\rerror (Other): no\u2028error (Other): no\n"
    first, *others = told(capsys, BadInput("Some", words)).splitlines()
    assert first == "error (Some): oh"
    assert others == ["  error (Other): no\\x1b[1A error (Other): no error (Other): no"]


def test_programs_have_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, BadInput("Some", TRACEBACK), as_json=True)
    assert json.loads(shown)["error"]["message"] == TRACEBACK


def test_an_error_without_words_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, BadInput("Some", "")) == "error (Some): \n"
