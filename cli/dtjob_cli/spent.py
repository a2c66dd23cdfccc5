"""What a local run has spent: told only where it is no less than its journals tell (rule 11)."""

from __future__ import annotations

from collections.abc import Sequence

from dtjob_api.ledger import PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_cli import resume
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.runs import RunDirectory
from dtjob_trainer import recovery
from dtjob_trainer.checkpoint import CheckpointStore
from dtjob_trainer.durable import VolumeUnusable
from dtjob_trainer.journal import JournalUnreadable
from dtjob_trainer.leasing import read_volume
from dtjob_trainer.ledger import LedgerError
from dtjob_trainer.ledger_file import FileLedger


def ledger_of(run: RunDirectory) -> PrivacyLedger:
    """Return the run's ledger if it knows of all draws that the run's journals tell of.

    Raises
    ------
    CommandError
        If there is no readable ledger, or it may lack draws: no epsilon can be stated then.
    """
    spec = resume.readable(run).ledger.spec
    store = CheckpointStore(run.state, spec.job_uid, spec.plan, keep=1)
    try:
        volume = read_volume(store)
    except JournalUnreadable as error:
        raise _unknown(run, f"{error}") from None
    except VolumeUnusable as error:
        message = f"what was spent is not known: {error.strerror}."
        remedy = f"Make {run.state}/ readable, then try again."
        raise CommandError(ExitCode.REFUSED, Reason.STORAGE_UNUSABLE, message, remedy) from None
    # Read after the volume: a run that goes on charges a lease before its journal has it.
    ledger = resume.ledger_of(run).ledger
    for wrong in recovery.behind(ledger, volume):
        raise _unknown(run, wrong)
    return ledger


def unfinished(runs_of_job: Sequence[RunDirectory]) -> str | None:
    """Return what who starts another run should know of the newest one that has not ended."""
    for run in reversed(runs_of_job):
        try:
            status = FileLedger(run.ledger).read().ledger.status
        except LedgerError:
            continue  # it is told to who resumes or reports it
        if status.outcome is None and status.charged:
            return (
                f"{run.path} has not ended and has spent {status.charged} draws; this run spends "
                f"anew. To go on with that one instead:  --resume {run.path}"
            )
    return None


def _unknown(run: RunDirectory, why: str) -> CommandError:
    return CommandError(
        ExitCode.REFUSED,
        Reason.PRIVACY_STATE_LOST,
        f"{why}. More was spent than the ledger knows of, so no epsilon can be stated.",
        f"Put the ledger's newest version back into {run.ledger}/, or raise it: "
        f"dtjob ledger restore {run.path}",
    )
