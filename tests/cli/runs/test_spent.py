"""What is stated of a run's spending, beside what its journals tell of."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    Lease,
    LedgerStatus,
    PrivacyLedger,
    VolumeRecord,
)
from dtjob_api.reasons import Reason
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.main import app
from dtjob_cli.runs import run_directory, run_volume, spent
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.journal import Entry, Header, Journal
from dtjob_trainer.ledger.recovery import VolumeState
from dtjob_trainer.ledger.volume import read_volume
from tests.support.builders import UID
from tests.support.commands.stored_runs import OUTCOME, drawn, leased, stored_run

CHARGED = 20
AGAIN = "dtjob report somewhere"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    ("to_draw", "attempt", "told"),
    [(CHARGED + 1, 1, "up to draw 21"), (CHARGED, 2, "attempt 2, the ledger is at attempt 1")],
)
def test_a_ledger_that_lacks_what_a_journal_tells_of_states_no_epsilon(
    tmp_path: Path, to_draw: int, attempt: int, told: str
) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, to_draw, attempt)
    with pytest.raises(CommandError) as refused:
        spent.complete_ledger(run, AGAIN)
    assert (refused.value.exit_code, refused.value.reason) == (
        ExitCode.REFUSED,
        Reason.PRIVACY_STATE_LOST,
    )
    assert told in refused.value.message
    assert f"dtjob ledger restore {run.path}" in refused.value.remedy
    assert refused.value.remedy.endswith(f"then go on with:  {AGAIN}")


@pytest.mark.rule(11)
@pytest.mark.parametrize("output", ["text", "json"])
def test_the_report_of_such_a_run_is_refused(tmp_path: Path, output: str) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED + 1)
    result = CliRunner().invoke(app, ["report", str(run.path), "--output", output])
    assert result.exit_code == ExitCode.REFUSED
    assert "PrivacyStateLost" in result.stdout + result.stderr
    assert "2." not in result.stdout, "an epsilon"


def test_a_ledger_that_knows_of_all_is_believed(tmp_path: Path) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED


def test_who_starts_anew_is_told_of_a_run_that_has_not_ended(tmp_path: Path) -> None:
    assert spent.unfinished(run_directory.begun(tmp_path, "digits")) is None
    run = stored_run(tmp_path, drawn(CHARGED))
    told = spent.unfinished(run_directory.begun(tmp_path, "digits"))
    assert told is not None
    assert f"{run.path} has not ended and has spent {CHARGED} draws" in told
    assert f"--resume {run.path}" in told


def test_what_is_to_be_typed_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    run = stored_run(folder, drawn(CHARGED))
    told = spent.unfinished([run])
    assert told is not None
    assert shlex.split(told.partition("instead:  ")[2]) == ["--resume", str(run.path)]


def test_of_runs_that_have_ended_or_spent_nothing_nobody_is_told(tmp_path: Path) -> None:
    stored_run(tmp_path, drawn(CHARGED).model_copy(update={"outcome": OUTCOME}))
    stored_run(tmp_path, drawn(0), uid="1" * 8 + UID[8:])
    assert spent.unfinished(run_directory.begun(tmp_path, "digits")) is None


def test_a_lease_that_is_taken_while_it_is_read_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on charges its ledger first and writes its journal then."""
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)

    def meanwhile(store: CheckpointStore) -> VolumeState:
        before = FileLedger(run.ledger).read()
        more = drawn(CHARGED + 10).model_copy(
            update={"lease": Lease(attempt=1, from_draw=20, to_draw=30, from_step=0)}
        )
        FileLedger(run.ledger).replace_status(before, more)
        Journal(run.state, Header(job_uid=UID, attempt=1, charged=0)).append(Entry(20, 30, 0))
        return read_volume(store)

    monkeypatch.setattr(run_volume, "read_volume", meanwhile)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED + 10


def _elsewhere(path: Path) -> None:
    """Leave a link to what is not mounted."""
    path.rename(path.with_name("moved"))
    path.symlink_to("/nowhere/mounted")


def _emptied(run: run_directory.RunDirectory) -> None:
    shutil.rmtree(run.state)
    run.state.mkdir()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_emptied, Reason.CHECKPOINT_LOST),
        (lambda run: shutil.rmtree(run.state), Reason.CHECKPOINT_LOST),
        (lambda run: (run.state / "attempt-1" / "journal").unlink(), Reason.CHECKPOINT_LOST),
        (lambda run: _elsewhere(run.state / "attempt-1" / "journal"), Reason.STORAGE_UNUSABLE),
        (lambda run: _elsewhere(run.state / "attempt-1"), Reason.STORAGE_UNUSABLE),
        (lambda run: _elsewhere(run.state), Reason.STORAGE_UNUSABLE),
    ],
    ids=["empty", "gone", "no journal", "journal a link", "attempt a link", "state a link"],
)
def test_without_the_journal_of_its_lease_a_ledger_may_be_an_older_copy(
    tmp_path: Path, harm: Callable[[run_directory.RunDirectory], Any], reason: Reason
) -> None:
    """A start would refuse it; the same attempt may have leased more."""
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, 60)
    harm(run)
    with pytest.raises(CommandError) as refused:
        spent.complete_ledger(run, AGAIN)
    assert (refused.value.exit_code, refused.value.reason) == (ExitCode.REFUSED, reason)
    assert "It is not known whether more was spent" in refused.value.message
    assert f"then go on with:  {AGAIN}" in refused.value.remedy


def test_a_checkpoint_whose_journal_is_gone_tells_of_a_loss(tmp_path: Path) -> None:
    """Also of an attempt whose number the ledger has taken anew."""
    run = stored_run(tmp_path, drawn(CHARGED).model_copy(update={"attempt": 2}))
    leased(run, CHARGED)
    other = leased(run, 60, attempt=2).path
    (other.parent / "step-5.pt").touch()
    other.unlink()
    with pytest.raises(CommandError) as refused:
        spent.complete_ledger(run, AGAIN)
    assert refused.value.reason == "JournalUnreadable"
    assert f"{other}: it is gone" in refused.value.message


@pytest.mark.parametrize("harm", [_emptied, lambda run: shutil.rmtree(run.state)])
def test_after_the_outcome_no_draw_is_hidden_by_a_lost_volume(
    tmp_path: Path, harm: Callable[[run_directory.RunDirectory], Any]
) -> None:
    run = stored_run(tmp_path, drawn(CHARGED).model_copy(update={"outcome": OUTCOME}))
    leased(run, CHARGED)
    harm(run)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED


def test_what_is_told_without_a_copy_of_the_volume_is_what_the_ledger_says(tmp_path: Path) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    with pytest.raises(CommandError) as refused:
        spent.complete_ledger(run, AGAIN)
    version = run.ledger / "0000000001.json"
    assert refused.value.remedy.endswith(f"dtjob report - < {version}")
    ledger = PrivacyLedger.model_validate_json(version.read_bytes())
    assert spent.of_ledger(ledger).status.charged == CHARGED


def test_a_lease_that_a_new_attempt_takes_while_it_is_read_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is made after the volume was looked at."""
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)

    def then(store: CheckpointStore) -> VolumeState:
        found = read_volume(store)
        before = FileLedger(run.ledger).read()
        begun = before.ledger.status.model_copy(update={"attempt": 2})
        taken = drawn(CHARGED + 10).model_copy(
            update={
                "attempt": 2,
                "lease": Lease(attempt=2, from_draw=20, to_draw=30, from_step=0),
            }
        )
        FileLedger(run.ledger).replace_status(
            FileLedger(run.ledger).replace_status(before, begun), taken
        )
        return found

    monkeypatch.setattr(run_volume, "read_volume", then)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED + 10


def test_an_attempt_that_begins_while_it_is_read_is_none_that_the_ledger_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)

    def meanwhile(store: CheckpointStore) -> VolumeState:
        before = FileLedger(run.ledger).read()
        begun = before.ledger.status.model_copy(update={"attempt": 2})
        FileLedger(run.ledger).replace_status(before, begun)
        (run.state / "attempt-2").mkdir()
        return read_volume(store)

    monkeypatch.setattr(run_volume, "read_volume", meanwhile)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED


def _contradictory(status: LedgerStatus) -> LedgerStatus:
    return status.model_copy(update={"checkpoint": None})


def _refused(status: LedgerStatus) -> LedgerStatus:
    """By an attempt that could not write down what it found, as where it could not read it."""
    lost = AttemptRecord(attempt=2, start=NOW, end=NOW, reason=Reason.PRIVACY_STATE_LOST)
    return status.model_copy(update={"attempt": 2, "attempts": [lost]})


def _behind(status: LedgerStatus) -> LedgerStatus:
    told = VolumeRecord(attempt=1, leased=1, charged=300, checkpoint=status.checkpoint)
    return status.model_copy(update={"volume": told})


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (_contradictory, "LedgerUnreadable", "charged is 20 without a checkpoint"),
        (_behind, "PrivacyStateLost", "a worker found 300 draws charged in attempt 1 there"),
        (_refused, "PrivacyStateLost", "attempt 2 was refused as PrivacyStateLost"),
    ],
)
def test_a_ledger_that_says_itself_that_it_is_not_sound_states_no_epsilon(
    tmp_path: Path, change: Callable[[LedgerStatus], LedgerStatus], reason: str, told: str
) -> None:
    """In a cluster it is all there is; of a run the volume may have been put back older since."""
    run = stored_run(tmp_path, change(drawn(CHARGED)))
    leased(run, CHARGED)
    with pytest.raises(CommandError) as refused:
        spent.complete_ledger(run, AGAIN)
    assert (refused.value.exit_code, refused.value.reason) == (ExitCode.REFUSED, reason)
    assert told in refused.value.message
    assert f"then go on with:  {AGAIN}" in refused.value.remedy
    assert ("status.attempts" in refused.value.remedy) == (change is _refused)

    with pytest.raises(CommandError) as refused:
        spent.of_ledger(FileLedger(run.ledger).read().ledger)
    assert refused.value.reason == reason
    assert told in refused.value.message
    assert ("status.attempts" in refused.value.remedy) == (change is _refused)


@pytest.mark.parametrize("command", ["report", "ledger restore"])
def test_a_folder_that_the_ledger_does_not_know_is_named_with_what_to_do(
    tmp_path: Path, command: str
) -> None:
    run = stored_run(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)
    (run.state / "attempt-9").mkdir()
    result = CliRunner().invoke(app, [*command.split(), str(run.path)])
    assert result.exit_code == ExitCode.REFUSED
    assert "error (PrivacyStateLost): " in result.stderr
    assert "the folder of attempt 9 is on the volume" in result.stderr
    assert "take it away or give it its name back" in " ".join(result.stderr.split())


def test_a_ledger_of_a_cluster_that_a_worker_found_behind_is_raised_first(tmp_path: Path) -> None:
    run = stored_run(tmp_path, _behind(drawn(CHARGED)))
    file = next(run.ledger.iterdir()).rename(tmp_path / "ledger.json")
    for output in ("text", "json"):
        result = CliRunner().invoke(app, ["report", str(file), "--output", output])
        said = result.stdout + result.stderr
        assert result.exit_code == ExitCode.REFUSED
        assert "PrivacyStateLost" in said
        assert f"dtjob ledger restore {run.path.name} --namespace NAMESPACE" in said


def test_a_ledger_that_was_raised_since_is_believed(tmp_path: Path) -> None:
    told = VolumeRecord(attempt=1, leased=1, charged=CHARGED)
    run = stored_run(tmp_path, drawn(CHARGED).model_copy(update={"volume": told}))
    ledger = FileLedger(run.ledger).read().ledger
    assert spent.of_ledger(ledger) == ledger
