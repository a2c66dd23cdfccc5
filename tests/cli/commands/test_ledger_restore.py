"""`dtjob ledger restore` on a local run (rule 11); tests/flows/cluster has it in a cluster."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from dtjob_api.schema.validation import validate
from dtjob_cli.main import app
from dtjob_cli.runs import run_directory, run_volume
from dtjob_trainer.ledger import recovery
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.recovery import VolumeState
from dtjob_trainer.ledger.volume import read_volume
from tests.support.builders import tiny_plan
from tests.support.checkout import DIGITS
from tests.support.ledgers.durability import Job, state_at
from tests.support.rules.stored_ledgers import STARTED


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run that died in its second lease, and whose newest two ledger versions are gone."""
    job = Job(tmp_path / "digits-0a1b2c3d", tiny_plan(steps=8, lease_steps=2, reserve=6))
    shutil.copyfile(DIGITS, job.root / "job.yaml")
    job.create()
    account, _ = job.opened()
    assert [job.draw(account), job.draw(account)] == [0, 1]
    account.publish(2, state_at(2))
    job.draw(account)
    job.begin()
    for _ in range(2):
        newest(job).unlink()
    return job


def newest(job: Job) -> Path:
    return max((job.root / "ledger").iterdir())


def restore(job: Job, *options: str) -> Result:
    arguments = ["ledger", "restore", str(job.root), *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_what_was_spent_is_charged_and_the_run_goes_on(job: Job) -> None:
    result = restore(job)
    assert (result.exit_code, result.stdout) == (
        0,
        "digits-0a1b2c3d raised: charged 2 to 6 of 14 reserved draws, attempt 1 to 1, "
        "checkpoint of step 0 to 2\n",
    )
    job.charged = 0
    job.run()
    assert job.check().status.outcome is not None


def test_no_name_in_a_ledger_moves_the_cursor(job: Job) -> None:
    stored = json.loads(newest(job).read_text())
    stored["metadata"]["name"] = "\x1b[2Kdigits\n"
    newest(job).write_text(json.dumps(stored))
    assert restore(job, "--dry-run").stdout.startswith("\\x1b[2Kdigits  would be raised: charged")


def test_a_dry_run_writes_nothing(job: Job) -> None:
    before = newest(job)
    result = restore(job, "--dry-run", "--output=json")
    assert json.loads(result.stdout) == {
        "ledger": "digits-0a1b2c3d",
        "before": {"attempt": 1, "charged": 2, "checkpointStep": 0},
        "after": {"attempt": 1, "charged": 6, "checkpointStep": 2},
        "reservedDraws": 14,
        "dryRun": True,
    }
    assert newest(job) == before


def test_a_ledger_that_is_not_behind_is_left_alone(job: Job) -> None:
    assert restore(job).exit_code == 0
    before = newest(job)
    result = restore(job)
    assert result.exit_code == 2
    assert "NothingToRestore" in result.stderr
    assert "charged 6 draws in attempt 1, the volume vouches for 4" in result.stderr
    assert newest(job) == before


def test_what_a_worker_has_found_counts_where_its_files_are_gone_since(job: Job) -> None:
    stored = json.loads(newest(job).read_text())
    stored["status"]["volume"] = {"attempt": 1, "leased": 1, "charged": 8}
    newest(job).write_text(json.dumps(stored))
    assert "charged 2 to 10 of 14" in restore(job, "--dry-run").stdout
    journal = job.state_dir / "attempt-1" / "journal"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    assert "charged 2 to 10 of 14" in restore(job).stdout


def test_a_run_in_use_is_not_touched(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtjob_cli.runs.resume.LEAVE_SECONDS", 0.0)
    with run_directory.locked(run_directory.existing(job.root)):
        result = restore(job)
    assert result.exit_code == 3
    assert "RunInUse" in result.stderr


def test_a_ledger_that_is_gone_is_not_made_up(job: Job) -> None:
    shutil.rmtree(job.root / "ledger")
    result = restore(job)
    assert result.exit_code == 3
    assert "PrivacyStateLost" in result.stderr


def test_without_a_whole_checkpoint_there_is_a_remedy(job: Job) -> None:
    newest(job).unlink()
    newest(job).unlink()
    for file in (job.state_dir / "attempt-1").glob("*.pt"):
        file.write_bytes(b"torn")
    result = restore(job)
    assert result.exit_code == 3
    assert "CheckpointLost" in result.stderr
    assert "put the checkpoint volume back" in result.stderr


def test_a_signal_before_the_ledger_is_written_leaves_it_as_it_is(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return read_volume(*arguments)

    monkeypatch.setattr(run_volume, "read_volume", interrupted)
    before = newest(job)
    result = restore(job)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith(f"\nstopped: {job.root / 'ledger'} was not raised.\n")
    assert newest(job) == before


def test_a_signal_ends_the_wait_for_a_run_in_use(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dtjob_cli.display.PlainDisplay.waiting", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    before = newest(job)
    with run_directory.locked(run_directory.existing(job.root)):
        result = restore(job)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "is still in use, nothing was changed" in result.stderr
    assert newest(job) == before


def test_what_a_raise_does_not_change_is_sent_as_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy compares texts: a time that is written in other digits would be another one."""
    stored = copy.deepcopy(STARTED)
    status = stored["status"]
    status["attempts"][0] |= {"start": "2026-01-02T03:04:05.5Z", "end": "2026-01-02T03:04:06+00:00"}
    checkpoint = status["checkpoint"] | {"step": 30, "charged": 40, "attempt": 4}
    status["volume"] = {"attempt": 4, "leased": 4, "charged": 40, "checkpoint": checkpoint}
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("dtjob_cli.kubectl.get_ledger", lambda *_: copy.deepcopy(stored))
    monkeypatch.setattr(
        "dtjob_cli.kubectl.replace_ledger_status", lambda ledger, **_: sent.append(ledger)
    )
    result = CliRunner().invoke(app, ["ledger", "restore", "digits-01234567", "--namespace=a"])
    assert (result.exit_code, result.stderr) == (0, "")
    (ledger,) = sent
    assert ledger["spec"] == stored["spec"]
    raised = {"attempt", "restored", "charged", "segments", "checkpoint"}
    rest = {name: value for name, value in ledger["status"].items() if name not in raised}
    assert rest == {
        name: value for name, value in status.items() if name not in raised | {"volume"}
    }
    assert (ledger["status"]["attempt"], ledger["status"]["restored"]) == (4, 4)
    assert validate(ledger, old=stored) == []


def test_a_ledger_of_the_cluster_that_contradicts_the_schema_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = copy.deepcopy(STARTED)
    broken["status"]["charged"] = "many"
    monkeypatch.setattr("dtjob_cli.kubectl.get_ledger", lambda *_: broken)
    result = CliRunner().invoke(app, ["ledger", "restore", "digits-01234567", "--namespace=a"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error (LedgerUnreadable): a/digits-01234567: status.charged: Input should be a valid "
        "integer, unable to parse string as an integer.\n"
    )


def test_a_volume_that_can_not_be_read_is_named_and_changes_nothing(job: Job) -> None:
    (job.state_dir / "attempt-9").touch()  # no folder, as little to be read as another user's
    before = newest(job)
    result = restore(job)
    assert result.exit_code == 3
    assert "Not a directory" in result.stderr
    assert newest(job) == before


def _removed(job: Job) -> None:
    shutil.rmtree(job.state_dir)


def _emptied(job: Job) -> None:
    _removed(job)
    job.state_dir.mkdir()


def _unmounted(job: Job) -> None:
    """But for the folder of another attempt, which proves nothing new."""
    attempt = job.state_dir / "attempt-1"
    attempt.rename(job.state_dir / "elsewhere")
    attempt.with_name(f"attempt-{job.begin()}").mkdir()


@pytest.mark.parametrize("harm", [_removed, _emptied, _unmounted])
def test_a_run_whose_volume_is_lost_is_told_what_its_report_and_a_start_say(
    job: Job, harm: Callable[[Job], None]
) -> None:
    """Not to raise what nothing proves to be behind, nor to wait for what a cluster says."""
    harm(job)
    before = newest(job)
    result = restore(job)
    report = CliRunner().invoke(app, ["report", str(job.root)])
    with pytest.raises(recovery.TrainingHeld) as start:
        recovery.resume_point(job.read(), VolumeState([], [], []))
    for said in (result, report):
        assert said.exit_code == 3
        assert f"error ({start.value.reason}): {start.value.message.split('.')[0]}" in said.stderr
        assert f"Put {job.state_dir}/ back where it was, or from a copy" in said.stderr
        assert "cluster" not in said.stderr
    assert f"then go on with:  dtjob ledger restore {job.root}" in result.stderr
    assert newest(job) == before


def test_a_run_that_has_charged_nothing_has_no_journal_to_lose(job: Job) -> None:
    for _ in range(10):
        if job.read().status.charged == 0:
            break
        newest(job).unlink()
    job.ledger = FileLedger(job.root / "ledger")
    assert job.read().status.charged == 0
    _emptied(job)
    result = restore(job)
    assert result.exit_code == 2
    assert "NothingToRestore" in result.stderr
    assert (
        f"There is no journal in {job.state_dir}/: if there was one, put it back" in result.stderr
    )


def test_what_only_looks_like_a_checkpoint_raises_nothing(job: Job) -> None:
    """The newest that is whole does; and the number of its step counts all the same."""
    torch.save([1, 2], job.state_dir / "attempt-1" / "step-5.pt")
    result = restore(job)
    assert result.exit_code == 0
    assert "checkpoint of step 0 to 2" in result.stdout


@pytest.mark.parametrize(
    ("number", "told", "remedy"),
    [
        (errno.ENOSPC, "no room on the volume of ", "Make room on the disk of "),
        (errno.EDQUOT, "no room on the volume of ", "Make room on the disk of "),
        (errno.EIO, "can't be written: Input/output error", "Make the volume writable"),
    ],
)
def test_a_ledger_that_can_not_be_written_stays_as_it_is(
    job: Job, monkeypatch: pytest.MonkeyPatch, number: int, told: str, remedy: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    before = newest(job)
    monkeypatch.setattr(os, "link", refused)
    result = restore(job)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error (LedgerNotWritten): " in result.stderr
    assert told in result.stderr
    assert remedy in result.stderr
    assert newest(job) == before


def test_of_a_ledger_that_may_not_last_it_is_told_that_it_is_there(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = os.link

    def failing(*arguments: Any, **keywords: Any) -> None:
        publish(*arguments, **keywords)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = newest(job)
    monkeypatch.setattr(os, "link", failing)
    result = restore(job)
    assert result.exit_code == 3
    assert "error (LedgerNotWritten): " in result.stderr
    assert "It is there all the same" in result.stderr
    assert newest(job) > before
