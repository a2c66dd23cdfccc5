"""`dtjob result`: model and report whole in a folder, or nothing of them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dtjob_api.ledger.privacy_ledger import CheckpointRecord
from dtjob_cli.commands import fetch_result
from dtjob_cli.main import app
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import START
from tests.support.commands.kubectl_answers import Answers
from tests.support.commands.stored_runs import OUTCOME, drawn, leased, stored_run

pytestmark = pytest.mark.usefixtures("accounts")

CONTENT = b"a model of many bytes" * 1000
PATH = "attempt-1/step-30.pt"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """One that has ended, with its model."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    outcome = OUTCOME.model_copy(update={"result": {"modelDigest": f"sha256:{digest}"}})
    record = CheckpointRecord(step=30, charged=30, attempt=1, path=PATH, sha256=digest, time=START)
    status = drawn(30).model_copy(update={"outcome": outcome, "checkpoint": record})
    found = stored_run(tmp_path / "runs", status)
    leased(found, 30)
    (found.state / PATH).write_bytes(CONTENT)
    return found


def result(run: RunDirectory, folder: Path, *options: str) -> Result:
    command = ["result", str(run.path), "-o", str(folder), *options]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def left(folder: Path) -> list[str]:
    """What is beside the runs."""
    return sorted(each.name for each in folder.iterdir() if each.name != "runs")


@pytest.mark.parametrize("there_before", [False, True])
def test_model_and_report_are_in_a_folder_that_is_new_or_empty(
    run: RunDirectory, tmp_path: Path, there_before: bool
) -> None:
    folder = tmp_path / "a" / "out"
    if there_before:
        folder.mkdir(parents=True)
    done = result(run, folder)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert done.exit_code == 0
    assert f"model of job digits, step 30: {folder}/model.pt\nsha256 {digest}, as" in done.stdout
    assert (folder / "model.pt").read_bytes() == CONTENT
    report = json.loads((folder / "report.json").read_text())
    assert (report["job"], report["spent"]["draws"]) == ("digits", 30)
    assert left(folder.parent) == ["out"]


def test_programs_get_an_object(run: RunDirectory, tmp_path: Path) -> None:
    found = json.loads(result(run, tmp_path / "out", "--format=json").stdout)
    assert found == {
        "job": "digits",
        "step": 30,
        "model": str(tmp_path / "out/model.pt"),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "report": str(tmp_path / "out/report.json"),
    }


def test_another_model_than_the_ledgers_is_refused_and_nothing_is_left(
    run: RunDirectory, tmp_path: Path
) -> None:
    (run.state / PATH).write_bytes(CONTENT + b"x")
    done = result(run, tmp_path / "out", "--format=json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"]["reason"] == "ResultMismatch"
    assert left(tmp_path) == []


def test_a_model_that_is_gone_is_named(run: RunDirectory, tmp_path: Path) -> None:
    (run.state / PATH).unlink()
    done = result(run, tmp_path / "out")
    assert done.exit_code == 3
    assert f"error (VolumeUnread): {run.state / PATH}: No such file" in done.stderr
    assert left(tmp_path) == []


def test_a_path_that_leads_out_of_the_volume_is_not_followed(
    run: RunDirectory, tmp_path: Path
) -> None:
    (run.state / PATH).unlink()
    (run.state / PATH).symlink_to("/etc/passwd")
    done = result(run, tmp_path / "out")
    assert (done.exit_code, "it leads out of the volume" in done.stderr) == (3, True)


def test_what_is_in_the_folder_stays(run: RunDirectory, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").touch()
    done = result(run, folder)
    assert (done.exit_code, left(folder)) == (2, ["mine"])
    assert f"error (FolderNotEmpty): {folder}: there is something already." in done.stderr


def test_a_full_disk_leaves_nothing(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetch_result, "_copied", full)
    done = result(run, tmp_path / "out")
    assert done.exit_code == 3
    assert "error (ResultNotWritten): " in done.stderr
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("ended", "words"),
    [(False, "job digits has not ended."), (True, "has ended without a model: Completed.")],
)
def test_a_run_without_a_result_has_none(tmp_path: Path, ended: bool, words: str) -> None:
    status = drawn(0).model_copy(update={"outcome": OUTCOME if ended else None})
    done = result(stored_run(tmp_path / "runs", status), tmp_path / "out")
    assert done.exit_code == 3
    assert "error (NoResult): " in done.stderr
    assert words in done.stderr
    assert left(tmp_path) == []


def in_cluster(answers: Answers, run: RunDirectory, folder: Path, content: bytes) -> Result:
    ledger = FileLedger(run.ledger).read().ledger.to_dict()
    ledger["metadata"]["namespace"] = "a"
    answers.has("ledger.json", ledger)
    (answers.folder / "sent").write_bytes(content)
    return CliRunner().invoke(app, ["result", "digits", "--namespace=a", "-o", str(folder)])


def test_of_a_job_in_a_cluster_it_comes_from_its_claim(
    answers: Answers, run: RunDirectory, tmp_path: Path
) -> None:
    assert in_cluster(answers, run, tmp_path / "out", CONTENT).exit_code == 0
    assert (tmp_path / "out" / "model.pt").read_bytes() == CONTENT
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["scope"] == "this job only"
    assert answers.was_deleted


def test_a_model_that_comes_over_torn_leaves_neither_folder_nor_pod(
    answers: Answers, run: RunDirectory, tmp_path: Path
) -> None:
    done = in_cluster(answers, run, tmp_path / "out", CONTENT[:-1])
    assert (done.exit_code, "error (ResultMismatch)" in done.stderr) == (3, True)
    assert left(tmp_path) == ["kubectl"]
    assert answers.was_deleted


def test_a_ledger_of_another_form_is_refused_by_its_field(answers: Answers, tmp_path: Path) -> None:
    answers.has("ledger.json", {"kind": "PrivacyLedger"})
    done = CliRunner().invoke(app, ["result", "digits", "-n", "a", "-o", str(tmp_path / "out")])
    assert (done.exit_code, "a/digits-" in done.stderr) == (2, True)
    assert "(LedgerUnreadable)" in done.stderr
