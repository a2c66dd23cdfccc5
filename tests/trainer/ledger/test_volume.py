"""What a checkpoint volume proves is recorded, whatever lies beside it (rule 11)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dtjob_api.ledger.privacy_ledger import LedgerStatus
from dtjob_api.reasons import Reason
from dtjob_trainer.ledger.backend import LedgerRejected, Versioned
from dtjob_trainer.ledger.durable import VolumeFull
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.journal import Header, Journal, attempt_folder
from dtjob_trainer.ledger.recovery import TrainingHeld, restored
from tests.support.builders import tiny_plan
from tests.support.ledgers.durability import Job


def behind(root: Path) -> Job:
    """Attempt 1 has trained three steps; the ledger is that of the beginning, at attempt 2."""
    job = Job(root / "job", tiny_plan(steps=6, lease_steps=2, reserve=6))
    job.create()
    job.run(stop_after=3)
    for version in sorted((job.root / "ledger").iterdir())[1:]:
        version.unlink()
    job.ledger = FileLedger(job.root / "ledger")
    job.begin()
    return job


def spoilt(job: Job, attempt: int) -> Path:
    path = attempt_folder(job.state_dir, attempt) / "journal"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"?\n")
    return path


def refused(job: Job) -> TrainingHeld:
    with pytest.raises(TrainingHeld) as refusal:
        job.opened()
    return refusal.value


@pytest.mark.rule(11)
@pytest.mark.parametrize("goes", ["the journal", "the volume"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_journal_that_nobody_can_read_counts_as_all_that_is_reserved(
    goes: str, stop_after: int, tmp_path: Path
) -> None:
    """Of an attempt whose lease the ledger does not know, also when the file is gone."""
    job = Job(tmp_path / "job", tiny_plan(steps=6, lease_steps=2, reserve=6))
    job.create()
    if stop_after > 1:
        job.run(stop_after=1)
    old = len(list((job.root / "ledger").iterdir()))
    job.run(stop_after=stop_after)
    attempt = job.read().status.attempt
    for version in sorted((job.root / "ledger").iterdir())[old:]:
        version.unlink()
    job.ledger = FileLedger(job.root / "ledger")
    (attempt_folder(job.state_dir, attempt) / "journal").write_bytes(b"?\n")
    while job.read().status.attempt < attempt:
        job.begin()
    for _ in range(2):
        with pytest.raises(TrainingHeld, match="all reserved draws count as spent") as refusal:
            job.opened()
        assert refusal.value.reason is Reason.PRIVACY_STATE_LOST
    proven = job.read().status.volume
    assert proven is not None
    assert (proven.leased, proven.charged) == (attempt, job.read().spec.reserved_draws)

    shutil.rmtree(
        attempt_folder(job.state_dir, attempt) if goes == "the journal" else job.state_dir
    )
    job.state_dir.mkdir(exist_ok=True)
    with pytest.raises(TrainingHeld) as refusal:
        job.opened()
    assert refusal.value.reason is Reason.PRIVACY_STATE_LOST


@pytest.mark.rule(11)
@pytest.mark.parametrize("hindered", ["checkpoint", "ledger", "full disk"])
def test_what_a_volume_proves_is_recorded_whatever_else_is_wrong(
    hindered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is out of sight takes no proof away, nor a ledger the reason."""
    job = behind(tmp_path)
    if hindered == "checkpoint":
        attempt_folder(job.state_dir, 1).joinpath("step-9.pt").symlink_to(tmp_path / "nowhere")
    attempt, replace = job.begin(), job.ledger.replace_status

    def refused(versioned: Versioned, status: LedgerStatus) -> Versioned:
        if hindered == "ledger":
            raise LedgerRejected("no")
        if hindered == "full disk":
            raise VolumeFull(tmp_path, 2, 1, "full")
        return replace(versioned, status)

    monkeypatch.setattr(job.ledger, "replace_status", refused)
    with pytest.raises(TrainingHeld) as refusal:
        job.leased(attempt).resume()
    assert refusal.value.reason is Reason.PRIVACY_STATE_LOST
    proven = job.read().status.volume
    assert (proven is None) == (hindered != "checkpoint")
    if proven is not None:
        assert (proven.leased, proven.checkpoint) == (1, None)
        assert proven.charged >= 3


def _of_another_job(job: Job) -> None:
    Journal(job.state_dir, Header("another", 5, 0)).create()


def _no_attempts_folder(job: Job) -> None:
    attempt_folder(job.state_dir, 0).mkdir()


def _no_steps_file(job: Job) -> None:
    (attempt_folder(job.state_dir, 1) / "step-99999999999.pt").touch()


@pytest.mark.rule(11)
@pytest.mark.parametrize("beside", [_of_another_job, _no_attempts_folder, _no_steps_file])
def test_what_lies_beside_a_journal_hides_none_of_its_draws(
    beside: Callable[[Job], None], tmp_path: Path
) -> None:
    job = behind(tmp_path)
    beside(job)
    refusal = refused(job)
    assert refusal.reason is Reason.PRIVACY_STATE_LOST
    assert refusal.proof is not None
    assert (refusal.proof.leased, refusal.proof.attempt) == (1, 1)
    assert refusal.proof.charged >= 3


def test_a_journal_that_nobody_can_read_hides_none_of_another_one(tmp_path: Path) -> None:
    """The ledger is of a time when attempt 1 had ended; attempt 2 has leased, and 3 after it."""
    job = Job(tmp_path / "job", tiny_plan(steps=6, lease_steps=2, reserve=6))
    job.create()
    job.run(stop_after=1)
    old = len(list((job.root / "ledger").iterdir()))
    job.run(stop_after=2)
    for version in sorted((job.root / "ledger").iterdir())[old:]:
        version.unlink()
    job.ledger = FileLedger(job.root / "ledger")
    spoilt(job, 1)
    refusal = refused(job)
    assert refusal.reason is Reason.PRIVACY_STATE_LOST
    assert refusal.proof is not None
    assert refusal.proof.leased == 2
    assert refusal.proof.charged > job.read().status.charged


@pytest.mark.rule(11)
def test_of_a_volume_of_another_job_nothing_is_counted(tmp_path: Path) -> None:
    """It may be mounted by mistake, and goes again."""
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=6))
    job.create()
    _of_another_job(job)
    spoilt(job, 6)
    refusal = refused(job)
    assert (refusal.reason, refusal.proof) == (Reason.CHECKPOINT_LOST, None)
    assert "the checkpoint volume is another job's" in refusal.message


def test_an_empty_folder_adds_nothing_to_what_nobody_can_read(tmp_path: Path) -> None:
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=6))
    job.create()
    spoilt(job, 3)
    attempt_folder(job.state_dir, 2147483647).mkdir()
    proof = refused(job).proof
    assert proof is not None
    assert (proof.attempt, proof.leased) == (3, 3)


def test_a_name_that_no_run_has_is_to_be_taken_away(tmp_path: Path) -> None:
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=6))
    job.create()
    job.run(stop_after=1)
    _no_attempts_folder(job)
    refusal = refused(job)
    assert (refusal.reason, refusal.proof) == (Reason.STORAGE_UNUSABLE, None)
    assert "take it away" in refusal.message
    attempt_folder(job.state_dir, 0).rmdir()
    job.run()
    assert job.check().status.outcome is not None


@pytest.mark.rule(11)
def test_a_raise_covers_a_lease_that_its_journal_does_not_have(tmp_path: Path) -> None:
    """Its attempt may have stood still between the two, and wake after the raise."""
    job = Job(tmp_path / "job", tiny_plan(steps=6, lease_steps=2, reserve=6))
    job.create()
    job.run(stop_after=1)
    Journal(job.state_dir, Header(job.read().spec.job_uid, 3, job.read().status.charged)).create()
    refusal = refused(job)
    assert refusal.proof is not None
    before = job.read()
    assert restored(before, refusal.proof).charged == before.status.charged + 2
