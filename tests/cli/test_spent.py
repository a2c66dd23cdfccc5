"""What is stated of a run's spending, beside what its journals tell of."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import UID, drawn, made
from typer.testing import CliRunner

from dtjob_api.ledger import Lease, Outcome, OutcomeState
from dtjob_api.reasons import Reason
from dtjob_cli import runs, spent, volume
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.main import app
from dtjob_trainer.checkpoint import CheckpointStore
from dtjob_trainer.journal import Entry, Header, Journal
from dtjob_trainer.ledger_file import FileLedger
from dtjob_trainer.recovery import VolumeState

CHARGED = 20
AGAIN = "dtjob report somewhere"


def leased(run: runs.RunDirectory, to_draw: int, attempt: int = 1) -> Journal:
    journal = Journal(run.state, Header(job_uid=UID, attempt=attempt, charged=0))
    journal.create()
    journal.append(Entry(from_draw=0, to_draw=to_draw, from_step=0))
    return journal


@pytest.mark.parametrize(
    ("to_draw", "attempt", "told"),
    [(CHARGED + 1, 1, "up to draw 21"), (CHARGED, 2, "attempt 2, the ledger is at attempt 1")],
)
def test_a_ledger_that_lacks_what_a_journal_tells_of_states_no_epsilon(
    tmp_path: Path, to_draw: int, attempt: int, told: str
) -> None:
    run = made(tmp_path, drawn(CHARGED))
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


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_report_of_such_a_run_is_refused(tmp_path: Path, output: str) -> None:
    run = made(tmp_path, drawn(CHARGED))
    leased(run, CHARGED + 1)
    result = CliRunner().invoke(app, ["report", str(run.path), "--output", output])
    assert result.exit_code == ExitCode.REFUSED
    assert "PrivacyStateLost" in result.stdout + result.stderr
    assert "2." not in result.stdout, "an epsilon"


def test_a_ledger_that_knows_of_all_is_believed(tmp_path: Path) -> None:
    run = made(tmp_path, drawn(CHARGED))
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED, "without a journal"
    leased(run, CHARGED)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED


def test_who_starts_anew_is_told_of_a_run_that_has_not_ended(tmp_path: Path) -> None:
    assert spent.unfinished(runs.begun(tmp_path, "digits")) is None
    run = made(tmp_path, drawn(CHARGED))
    told = spent.unfinished(runs.begun(tmp_path, "digits"))
    assert told is not None
    assert f"{run.path} has not ended and has spent {CHARGED} draws" in told
    assert f"--resume {run.path}" in told


def test_of_runs_that_have_ended_or_spent_nothing_nobody_is_told(tmp_path: Path) -> None:
    outcome = Outcome(
        state=OutcomeState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="",
        time="2026-01-01T00:00:00Z",
    )
    made(tmp_path, drawn(CHARGED).model_copy(update={"outcome": outcome}))
    made(tmp_path, drawn(0), uid="1" * 8 + UID[8:])
    assert spent.unfinished(runs.begun(tmp_path, "digits")) is None


def test_a_lease_that_is_taken_while_it_is_read_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on charges its ledger first and writes its journal then."""
    run = made(tmp_path, drawn(CHARGED))
    leased(run, CHARGED)
    read_volume = volume.read_volume

    def meanwhile(store: CheckpointStore) -> VolumeState:
        before = FileLedger(run.ledger).read()
        more = drawn(CHARGED + 10).model_copy(
            update={"lease": Lease(attempt=1, from_draw=20, to_draw=30, from_step=0)}
        )
        FileLedger(run.ledger).replace_status(before, more)
        Journal(run.state, Header(job_uid=UID, attempt=1, charged=0)).append(Entry(20, 30, 0))
        return read_volume(store)

    monkeypatch.setattr(volume, "read_volume", meanwhile)
    assert spent.complete_ledger(run, AGAIN).status.charged == CHARGED + 10
