"""What a local run has spent: told only where it is no less than its journals tell (rule 11)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dtjob_api.ledger import PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_cli import resume, volume
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.runs import RunDirectory
from dtjob_trainer import recovery
from dtjob_trainer.ledger import LedgerError
from dtjob_trainer.ledger_file import FileLedger


def complete_ledger(run: RunDirectory, again: str) -> PrivacyLedger:
    """Return the run's ledger if it knows of all draws that the run's journals tell of.

    Parameters
    ----------
    again
        The command by which a user goes on once what is wrong is put right.

    Raises
    ------
    CommandError
        If there is no readable ledger, or it may lack draws: no epsilon can be stated then.
    """
    found = volume.state(run, resume.readable(run).ledger, again)
    # Read after the volume: a run that goes on charges a lease before its journal has it.
    ledger = resume.ledger_of(run).ledger
    for wrong in recovery.behind(ledger, found):
        raise CommandError(
            ExitCode.REFUSED,
            Reason.PRIVACY_STATE_LOST,
            f"{wrong}. More was spent than the ledger knows of, so no epsilon can be stated.",
            f"Put the ledger's newest version back into {run.ledger}/, or raise it "
            f"(dtjob ledger restore {shlex.quote(str(run.path))}), then go on with:  {again}",
        )
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
