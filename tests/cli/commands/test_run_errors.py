"""What `dtjob run` makes of errors of the operating system: the message names what it is about."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_cli import privacy_report
from dtjob_cli.commands import run as command
from dtjob_cli.display import PlainDisplay
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.interrupts import Interrupts
from dtjob_cli.main import app
from dtjob_cli.runs import local_workers, spent
from dtjob_cli.runs.run_directory import RunDirectory
from tests.support.checkout import DIGITS


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


def test_what_is_missing_of_a_run_is_to_be_put_back() -> None:
    refused = command.refused(_raised(errno.ENOENT, "/runs/digits/logs/worker-0.jsonl"))

    assert "/runs/digits/logs/worker-0.jsonl: No such file" in refused.message
    assert "Put it back, then run the command again" in refused.remedy
    assert "room" not in refused.remedy


FULL = Path("/dev/full")


def _full(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(FULL)


@pytest.mark.parametrize("what", ["report", "configuration"])
def test_a_file_that_the_disk_has_no_room_for_is_named(tmp_path: Path, what: str) -> None:
    run = RunDirectory(tmp_path)
    config: Any = SimpleNamespace(http_port=1, model_dump_json=lambda **_: "{}")
    file, write = {
        "report": (
            run.privacy_report.with_suffix(".tmp"),
            lambda: privacy_report.save(run, {"job": "digits"}),
        ),
        "configuration": (
            run.workers / "worker-0.json",
            lambda: local_workers.Workers(run, [config], environment={}, lock=0, max_restarts=0),
        ),
    }[what]
    _full(file)
    with pytest.raises(OSError, match="No space left") as caught:
        write()

    refused = command.refused(caught.value)

    assert refused.reason == "RunDirectory"
    assert f"{file}: No space left" in refused.message
    for words in ("keeps its ledger and its last checkpoint", "Make room", "--resume"):
        assert words in refused.remedy


def test_a_report_that_can_not_be_saved_does_not_hide_how_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    _full(run.privacy_report.with_suffix(".tmp"))
    summary = {"state": "Unfinished", "step": 10, "plan": {}, "spent": {"draws": 20}}
    monkeypatch.setattr(spent, "complete_ledger", lambda *_: None)
    monkeypatch.setattr(privacy_report, "build", lambda *_: summary)
    request = command.Request(DIGITS, True, None, None, tmp_path, None, None, False)
    shown = StringIO()
    session = command._Session(request, {}, PlainDisplay(shown), Interrupts())
    end = local_workers.End(
        0, WorkerExit.HELD, "StorageFull", "no room on the volume", restarted=False
    )
    accountant: Any = None

    with pytest.raises(CommandError) as caught:
        session._concluded(run, [end], accountant)

    assert caught.value.reason == "StorageFull"
    assert "The checkpoint of step 10 is intact" in caught.value.remedy
    assert f"{run.privacy_report} is not written" in shown.getvalue()
    assert f"dtjob report {tmp_path}" in shown.getvalue()


@pytest.mark.rule(13)
def test_the_report_of_a_run_that_went_on_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """It would state fewer draws, and a lower epsilon, than were spent."""
    run = RunDirectory(tmp_path)
    request = command.Request(DIGITS, True, None, None, tmp_path, None, None, False)
    session = command._Session(request, {}, PlainDisplay(StringIO()), Interrupts())
    for draws in (10, 20):
        session._save(run, {"spent": {"draws": draws}})
        assert json.loads(run.privacy_report.read_text())["spent"]["draws"] == draws


@pytest.mark.parametrize("option", ["--dir", "--data"])
def test_a_place_whose_name_is_no_text_is_refused_before_anything_is_made(option: str) -> None:
    result = CliRunner().invoke(app, ["run", str(DIGITS), option, os.fsdecode(b"/r\xffns")])

    assert result.exit_code == 2
    assert "PathNotText" in result.stderr
    assert f"{option} /r\\udcffns" in result.stderr
    assert "LC_ALL" in result.stderr


def test_data_that_may_be_the_wrong_ones_are_not_offered_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "digits-0a1b2c3d")
    asked = command.Request(DIGITS, True, None, 2, tmp_path, Path("wrong data"), None, False)
    again = f"dtjob run {DIGITS} --resume {run.path} --workers 2"
    for reason in ("TaskFailed", "DatasetInvalid"):
        assert asked.resume_command(run, reason) == f"{again} --data PATH"
    for reason in ("", "StorageFull", "CheckpointLost"):
        assert asked.resume_command(run, reason) == f"{again} --data 'wrong data'"
    without = replace(asked, data=None)
    assert without.resume_command(run, "TaskFailed") == again
