"""`dtjob ledger restore`: raise a ledger that is behind its checkpoint volume (rule 11)."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dtjob_api.ledger import proven
from dtjob_api.ledger.privacy_ledger import LedgerStatus, PrivacyLedger, VolumeRecord
from dtjob_api.model import first_error
from dtjob_cli import kubectl, standard_streams
from dtjob_cli.display import for_stream
from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_cli.interrupts import counted
from dtjob_cli.runs import resume, run_directory, run_volume
from dtjob_trainer.ledger import recovery
from dtjob_trainer.ledger.file_ledger import FileLedger

Summary = dict[str, Any]


def restore(source: str, namespace: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Raise what a ledger has charged to what was spent, and print both.

    Parameters
    ----------
    source
        Directory of a local run; with a `namespace` the name of a PrivacyLedger in the cluster.
    dry_run
        Print what would be written, and write nothing.

    Raises
    ------
    CommandError
        If the ledger is not behind, can't be read, or may not be written, or if the command is
        interrupted before it is written.
    """
    if namespace is None:
        before, after = _in_directory(Path(source), dry_run=dry_run)
    else:
        before, after = _in_cluster(source, namespace, dry_run=dry_run)
    summary = _summary(before, after, dry_run=dry_run)
    sys.stdout.write(json.dumps(summary) + "\n" if as_json else _text(summary))
    if why := standard_streams.unprinted():
        sys.stderr.write(f"not printed, since the standard output failed ({why}): {_text(summary)}")


def _in_directory(path: Path, *, dry_run: bool) -> tuple[PrivacyLedger, LedgerStatus]:
    run = run_directory.existing(path)
    with (
        counted() as interrupts,
        for_stream() as screen,
        resume.taken_over(run, screen, interrupts),
    ):
        screen.waiting("reading the checkpoints of the run")
        versioned = resume.readable(run)
        ledger = versioned.ledger
        again = f"dtjob ledger restore {shlex.quote(str(run.path))}"
        nothing = f"There is no journal in {run.state}/: if there was one, put it back, then run "
        volume = run_volume.state(run, ledger, again)
        proof, recorded = run_volume.vouched(run, ledger, volume, again), ledger.status.volume
        proof = recorded if proof is None else recovery.most(recorded, proof)
        is_behind = proof is not None and proven.proves_more(proof, ledger.status)
        if ledger.status.outcome is None and not is_behind:
            run_volume.check_known(run, ledger, volume, again)
            run_volume.check_complete(run, ledger, volume, again)
        status = _restored(ledger, proof, nothing + again)
        if not dry_run:
            interrupts.check(f"stopped: {run.ledger} was not raised.")
            with resume.written(run):
                FileLedger(run.ledger).replace_status(versioned, status)
        return ledger, status


def _in_cluster(name: str, namespace: str, *, dry_run: bool) -> tuple[PrivacyLedger, LedgerStatus]:
    stored = kubectl.get_ledger(namespace, name)
    try:
        ledger = PrivacyLedger.from_dict(stored)
    except ValidationError as error:
        raise BadInput("LedgerUnreadable", f"{namespace}/{name}: {first_error(error)}.") from None
    nothing = (
        "A worker that finds it so writes it into status.volume; wait for the job's reason "
        "PrivacyStateLost."
    )
    status = _restored(ledger, ledger.status.volume, nothing)
    # What does not change stays as it is stored, to the letter: the API server compares it.
    before, after = ledger.status.to_dict(), status.to_dict()
    unchanged = {key: value for key, value in stored["status"].items() if key in after}
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    kubectl.replace_ledger_status({**stored, "status": unchanged | changed}, dry_run=dry_run)
    return ledger, status


def _restored(ledger: PrivacyLedger, proof: VolumeRecord | None, nothing: str) -> LedgerStatus:
    if proof is None:
        raise BadInput(
            "NothingToRestore",
            f"nothing says that ledger {ledger.metadata.name} is behind its checkpoint volume.",
            nothing,
        )
    try:
        return recovery.restored(ledger, proof)
    except ValueError as error:
        raise BadInput("NothingToRestore", f"{error}: there is nothing to raise.") from None
    except recovery.TrainingHeld as refusal:
        raise CommandError(ExitCode.REFUSED, refusal.reason, f"{refusal.message}.") from None


def _summary(ledger: PrivacyLedger, status: LedgerStatus, *, dry_run: bool) -> Summary:
    return {
        "ledger": ledger.metadata.name,
        "before": _figures(ledger.status),
        "after": _figures(status),
        "reservedDraws": ledger.spec.reserved_draws,
        "dryRun": dry_run,
    }


def _figures(status: LedgerStatus) -> dict[str, int]:
    checkpoint = {"checkpointStep": status.checkpoint.step} if status.checkpoint else {}
    return {"attempt": status.attempt, "charged": status.charged, **checkpoint}


def _text(summary: Summary) -> str:
    before, after = summary["before"], summary["after"]
    verb = "would be raised" if summary["dryRun"] else "raised"
    return (
        f"{standard_streams.readable(summary['ledger'])} {verb}: "
        f"charged {before['charged']} to {after['charged']} of "
        f"{summary['reservedDraws']} reserved draws, attempt {before['attempt']} to "
        f"{after['attempt']}, checkpoint of step {before.get('checkpointStep', 'none')} to "
        f"{after.get('checkpointStep', 'none')}\n"
    )
