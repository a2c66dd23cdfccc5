"""Which runs go on, and which are refused before any worker is started."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtjob_api.derive import ledger_spec
from dtjob_api.ledger.privacy_ledger import (
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
)
from dtjob_api.model import ObjectMeta
from dtjob_api.reasons import Reason
from dtjob_cli import manifests
from dtjob_cli.display import PlainDisplay
from dtjob_cli.interrupts import Interrupts
from dtjob_cli.main import app
from dtjob_cli.runs import ports, resume, run_directory
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import START, UID, checkpoint, spent
from tests.support.checkout import DIGITS
from tests.support.commands.stored_runs import PLAN


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(DIGITS, "digits.yaml")
    return Path("digits.yaml")


@pytest.fixture
def run(manifest: Path) -> run_directory.RunDirectory:
    """A run whose workers have ended and whose ledger has no outcome."""
    job = manifests.job(manifests.read(manifest), UID)
    made = run_directory.create(Path("dtjob-runs"), f"digits-{UID[:8]}", manifest)
    meta = ObjectMeta(name=made.path.name, namespace="default")
    ledger = PrivacyLedger(metadata=meta, spec=ledger_spec(job, PLAN))
    FileLedger(made.ledger).create(ledger)
    (made.state / "attempt-1").mkdir()
    return made


def _dtjob(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def _versions(run: run_directory.RunDirectory) -> list[str]:
    return sorted(path.name for path in run.ledger.iterdir())


@pytest.mark.parametrize("directory", [(), (f"dtjob-runs/digits-{UID[:8]}",)])
def test_a_change_of_what_was_promised_is_refused_by_field(
    run: run_directory.RunDirectory, manifest: Path, directory: tuple[str, ...]
) -> None:
    manifest.write_text(manifest.read_text().replace("steps: 336", "steps: 400"))

    result = _dtjob("run", "digits.yaml", "--resume", *directory)

    assert result.exit_code == 2
    assert result.stderr.startswith("error (FieldChanged): ")
    assert "spec.training.steps: 336 in the run, now 400" in result.stderr
    assert "without" in result.stderr or "leave out --resume" in result.stderr
    assert _versions(run) == ["0000000001.json"]


@pytest.mark.rule(11)
def test_a_lost_ledger_is_never_made_anew(run: run_directory.RunDirectory) -> None:
    """A resume without a readable ledger is refused."""
    shutil.rmtree(run.ledger)

    result = _dtjob("run", "digits.yaml", "--resume")

    assert result.exit_code == 3
    assert "PrivacyStateLost" in result.stderr
    assert not run.ledger.exists()


@pytest.mark.rule(11)
def test_a_torn_ledger_is_refused_and_left_as_it_is(run: run_directory.RunDirectory) -> None:
    """No older version is taken in its place."""
    (run.ledger / "0000000002.json").write_text('{"spec": ')

    result = _dtjob("run", "digits.yaml", "--resume")

    assert result.exit_code == 3
    assert "LedgerUnreadable" in result.stderr
    assert "0000000002.json" in result.stderr
    assert _versions(run) == ["0000000001.json", "0000000002.json"]


@pytest.mark.usefixtures("one_accountant")
@pytest.mark.slow  # an accounting helper comes up
def test_a_run_that_failed_says_so_again(run: run_directory.RunDirectory) -> None:
    ledger = FileLedger(run.ledger)
    versioned = ledger.read()
    failed = Outcome(
        state=OutcomeState.FAILED,
        reason=Reason.TASK_INVALID,
        message="module no_such_package was not found; install it",
        time=START,
    )
    ledger.replace_status(versioned, LedgerStatus(attempt=1, outcome=failed))

    result = _dtjob("run", "digits.yaml", "--resume")

    assert result.exit_code == 1
    assert "no_such_package" in result.stderr


@pytest.mark.slow  # its report's figures are computed by a helper
@pytest.mark.parametrize("output", ["text", "json"])
def test_a_run_that_ended_early_is_told_and_has_an_exit_code_of_its_own(
    run: run_directory.RunDirectory, output: str
) -> None:
    ledger = FileLedger(run.ledger)
    versioned = ledger.read()
    early = Outcome(
        state=OutcomeState.SUCCEEDED,
        reason=Reason.PRIVACY_BUDGET_EXHAUSTED,
        message="what the workers say",
        time=START,
        result={"steps": 336},
    )
    status = LedgerStatus(
        attempt=1, checkpoint=checkpoint(12, 366), outcome=early, **spent(366, PLAN)
    )
    ledger.replace_status(versioned, status)

    result = _dtjob("run", "digits.yaml", "--resume", "--output", output)

    assert result.exit_code == 4
    assert "ended early (PrivacyBudgetExhausted): 12 of 336 steps done" in result.stderr
    assert "12 of 336 steps done" in result.stdout


def test_a_run_in_use_is_left_alone(
    run: run_directory.RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtjob_cli.runs.resume.LEAVE_SECONDS", 0.0)
    with run_directory.locked(run):
        result = _dtjob("run", "digits.yaml", "--resume")

    assert result.exit_code == 3
    assert "RunInUse" in result.stderr
    assert f"{run.path} is still in use after 0 s" in result.stderr
    assert "Nothing was changed" in result.stderr


def test_who_waits_for_a_run_in_use_says_for_whom_and_how_long(
    run: run_directory.RunDirectory,
) -> None:
    """Whether it is a live command or one that was killed can't be known."""
    told = []
    holding = ExitStack()
    holding.enter_context(run_directory.locked(run))

    class Screen(PlainDisplay):
        def waiting(self, text: str) -> None:
            told.append(text)
            holding.close()

    with resume.taken_over(run, Screen(StringIO()), Interrupts()):
        pass

    (text,) = told
    assert f"{run.path} is in use: another command trains it, or the workers of one" in text
    assert "waiting up to 120 s" in text


def test_without_an_earlier_run_nothing_is_resumed(manifest: Path) -> None:
    result = _dtjob("run", "digits.yaml", "--resume")

    assert result.exit_code == 2
    assert result.stderr.startswith("error (NoSuchRun): no run of job digits in dtjob-runs")


def test_a_directory_without_resume_is_a_mistake(run: run_directory.RunDirectory) -> None:
    result = _dtjob("run", "digits.yaml", str(run.path))

    assert result.exit_code == 2
    assert result.stderr.startswith("error (UnexpectedArgument): ")
    assert "--resume" in result.stderr


def test_a_run_that_never_drew_has_nothing_to_resume(manifest: Path) -> None:
    run = run_directory.create(Path("dtjob-runs"), f"digits-{UID[:8]}", manifest)

    result = _dtjob("run", "digits.yaml", "--resume", str(run.path))

    assert result.exit_code == 2
    assert "NeverStarted" in result.stderr


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.free()))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_told_before_anything_is_made(manifest: Path, taken_port: int) -> None:
    result = _dtjob("run", "digits.yaml", "--port", str(taken_port))

    assert result.exit_code == 2
    assert f"port {taken_port} is in use" in result.stderr
    assert "--port" in result.stderr
    assert not Path("dtjob-runs").exists()


def test_data_in_a_claim_needs_a_path_here(manifest: Path) -> None:
    text = manifest.read_text().replace("  storage:\n", "  storage:\n    data: {claimName: d}\n")
    manifest.write_text(text)

    result = _dtjob("run", "digits.yaml")

    assert result.exit_code == 2
    assert result.stderr.startswith("error (DataMissing): ")
    assert "--data" in result.stderr


def test_data_that_are_not_there_are_named(manifest: Path) -> None:
    result = _dtjob("run", "digits.yaml", "--data", "nowhere")

    assert result.exit_code == 2
    assert result.stderr == "error (NoSuchData): --data nowhere: there is nothing there.\n"
    assert not Path("dtjob-runs").exists()
