"""What was spent, stated only where a start would not refuse it as too little (rule 11)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dtjob_api.ledger import proven
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_cli.errors import BadInput, CommandError, ExitCode, then
from dtjob_cli.runs import resume, run_volume
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger import recovery
from dtjob_trainer.ledger.backend import LedgerError
from dtjob_trainer.ledger.file_ledger import FileLedger

_NO_EPSILON = "No epsilon can be stated."


def complete_ledger(run: RunDirectory, again: str) -> PrivacyLedger:
    """Return the run's ledger, unless a start would find a sign that it may lack draws.

    A ledger is written first, so a whole one is true also where its volume is lost. But while a run
    may go on, it can't be told from an older copy whose journals are out of sight, as where a
    volume is not mounted: the journal of its lease has to be there. The outcome is the last entry
    of a ledger, and in no older copy of it: after it no draw can be hidden, and the volume may be
    gone.

    Parameters
    ----------
    again
        The command by which a user goes on once what is wrong is put right.

    Raises
    ------
    CommandError
        If there is no readable ledger, or it may lack draws: no epsilon can be stated then.
    """
    # A run that goes on makes a journal before it leases, and charges a lease before its journal
    # has it: the volume is held against what was charged before it was read, and after.
    before = resume.readable(run).ledger
    volume = run_volume.state(run, before, again)
    ledger = resume.ledger_of(run).ledger
    go_on = then(again)
    if wrong := recovery.contradiction(ledger):
        raise CommandError(
            ExitCode.REFUSED,
            Reason.LEDGER_UNREADABLE,
            f"{wrong}. {_NO_EPSILON}",
            f"Put {run.ledger}/ back from a copy, {go_on}",
        )
    raised = (
        f"Put the ledger's newest version back into {run.ledger}/, or raise it "
        f"(dtjob ledger restore {shlex.quote(str(run.path))}), {go_on}"
    )
    for wrong in recovery.behind(ledger, volume):
        raise _lost(f"{wrong}. More was spent than the ledger knows of.", raised)
    if doubt := proven.may_lack_draws(ledger.status):
        raise _lost(f"{doubt}.", f"{raised}{_look_again(ledger)}")
    if ledger.status.outcome is None:
        run_volume.check_known(run, ledger, volume, again)
        run_volume.check_complete(run, before, volume, again)
    return ledger


def of_ledger(ledger: PrivacyLedger) -> PrivacyLedger:
    """Return a ledger of which nothing but itself is known, as one of a cluster, if it is sound.

    It may come from anywhere, so it is checked here against the rules that an API server or a run's
    folder holds each version to.

    Raises
    ------
    CommandError
        If it breaks rules of a ledger, or records itself that it lacks draws.
    """
    name = ledger.metadata.name
    if wrong := recovery.contradiction(ledger):
        raise BadInput(
            Reason.LEDGER_UNREADABLE,
            f"{wrong}. {_NO_EPSILON}",
            "Put the ledger back from a copy that is not older than its volume.",
        )
    if doubt := proven.may_lack_draws(ledger.status):
        namespace = ledger.metadata.namespace or "NAMESPACE"
        raise _lost(
            f"{doubt}.",
            "Put the ledger's newest version back, or raise it: dtjob ledger restore "
            f"{shlex.quote(name)} --namespace {shlex.quote(namespace)}{_look_again(ledger)}",
        )
    return ledger


def _lost(message: str, remedy: str) -> CommandError:
    return CommandError(
        ExitCode.REFUSED, Reason.PRIVACY_STATE_LOST, f"{message} {_NO_EPSILON}", remedy
    )


def _look_again(ledger: PrivacyLedger) -> str:
    """Return what else helps where no worker could record what it found on the volume."""
    if proven.found_more(ledger.status) is not None:
        return ""
    return (
        "\nWhat the attempt found is its message in status.attempts of the ledger. Where that is a "
        "lost file, put it back; the next attempt that leases draws has found nothing missing."
    )


def unfinished(runs_of_job: Sequence[RunDirectory]) -> str | None:
    """Return what to know of the newest run that has not ended, before another one is started."""
    for run in reversed(runs_of_job):
        try:
            status = FileLedger(run.ledger).read().ledger.status
        except LedgerError:
            continue  # who resumes or reports it sees the error
        if status.outcome is None and status.charged:
            return (
                f"{run.path} has not ended and has spent {status.charged} draws; this run spends "
                f"anew. To go on with that one instead:  --resume {shlex.quote(str(run.path))}"
            )
    return None
