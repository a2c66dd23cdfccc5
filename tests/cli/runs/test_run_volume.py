"""A volume that can't be read, or is not the run's, as `report` and `ledger restore` tell it."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtjob_api.reasons import Reason
from dtjob_cli.errors import ExitCode
from dtjob_cli.main import app
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger.journal import Entry, Header, Journal
from tests.support.builders import UID
from tests.support.commands.stored_runs import drawn, stored_run

CHARGED = 20
NOT_KNOWN = "It is not known whether more was spent than the ledger knows of"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Its journal vouches for all that its ledger has charged."""
    run = stored_run(tmp_path, drawn(CHARGED))
    _journal(run, UID, 1)
    return run


@pytest.fixture(params=["report", "ledger restore"])
def told(request: pytest.FixtureRequest, run: RunDirectory) -> Callable[[], str]:
    """What a command that is refused says of the run, on one line."""

    def say() -> str:
        before = sorted(run.ledger.iterdir())
        command = [*request.param.split(), str(run.path)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == ExitCode.REFUSED
        assert "dtjob ledger restore" not in result.stderr.replace("with:  dtjob", ""), "no ring"
        assert f"then go on with:  dtjob {request.param} {run.path}" in result.stderr
        assert sorted(run.ledger.iterdir()) == before
        return " ".join(result.stderr.split())

    return say


def _journal(run: RunDirectory, uid: str, attempt: int) -> Path:
    journal = Journal(run.state, Header(job_uid=uid, attempt=attempt, charged=0))
    journal.create()
    journal.append(Entry(from_draw=0, to_draw=CHARGED, from_step=0))
    return journal.path


def _of(run: RunDirectory) -> Path:
    return run.state / "attempt-1" / "journal"


def test_of_a_harmed_journal_it_is_not_known_what_it_told(
    run: RunDirectory, told: Callable[[], str]
) -> None:
    _of(run).write_bytes(_of(run).read_bytes().replace(b"from_draw", b"fr\x00m_draw"))
    words = told()
    assert f"error (JournalUnreadable): {_of(run)}, line 2: " in words
    assert NOT_KNOWN in words
    assert f"Put {_of(run)} back from a copy" in words


@pytest.mark.parametrize("name", ["attempt-99999999999", f"attempt-1/step-{10**20}.pt"])
def test_what_has_a_number_that_no_run_has_is_to_be_taken_away(
    run: RunDirectory, told: Callable[[], str], name: str
) -> None:
    """There is no copy to put it back from."""
    (run.state / name).mkdir()
    words = told()
    assert f"error (JournalUnreadable): {run.state / name}: no run has that number" in words
    assert NOT_KNOWN in words
    assert f"Take {run.state / name} away, or, where somebody has renamed it, give it its" in words
    assert "Put" not in words


def test_the_journal_of_another_job_is_called_so(
    run: RunDirectory, told: Callable[[], str]
) -> None:
    """Also where it tells of fewer draws; the ledger is not raised to what it tells."""
    other = _journal(run, "another-uid", 2)
    words = told()
    assert f"error ({Reason.CHECKPOINT_LOST}): the checkpoint volume is another job's: " in words
    assert f"{other} belongs to the job with UID another-uid, this job's is {UID}" in words
    assert NOT_KNOWN in words
    assert "take the other job's out" in words


def test_a_folder_in_a_journals_place_is_named(run: RunDirectory, told: Callable[[], str]) -> None:
    _of(run).unlink()
    _of(run).mkdir()
    words = told()
    assert f"error (JournalUnreadable): {_of(run)}: it is no regular file" in words
    assert NOT_KNOWN in words


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_whose_read_fails_is_named(
    run: RunDirectory, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The system's error of a read names no file."""

    class Failing(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise OSError(number, os.strerror(number))

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode: Failing() if path == _of(run) else opened(path, mode)
    )
    words = told()
    assert f"error ({Reason.STORAGE_UNUSABLE}): {_of(run)}: {os.strerror(number)}" in words
    assert NOT_KNOWN in words


def test_a_volume_that_is_no_folder_is_not_an_empty_one(
    run: RunDirectory, told: Callable[[], str]
) -> None:
    shutil.rmtree(run.state)
    run.state.touch()
    words = told()
    assert f"error ({Reason.STORAGE_UNUSABLE}): {run.state}: Not a directory" in words
    assert NOT_KNOWN in words
