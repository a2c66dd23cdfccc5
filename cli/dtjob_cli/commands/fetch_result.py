"""`dtjob result`: model and privacy report of a job that has ended, into a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from dtjob_accounting.process import PldProcess
from dtjob_api.ledger.privacy_ledger import CheckpointRecord, PrivacyLedger
from dtjob_api.model import first_error
from dtjob_api.shown import line
from dtjob_cli import (
    cluster_jobs,
    kept_volumes,
    kubectl,
    planning,
    privacy_report,
    standard_streams,
)
from dtjob_cli.display import Display, for_stream
from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_cli.kept_volumes import Folder, KeptVolume
from dtjob_cli.runs import run_directory, spent
from dtjob_cli.runs.run_directory import RunDirectory

MODEL = "model.pt"
REPORT = "report.json"


def fetch(name: str, namespace: str | None, folder: Path, *, as_json: bool) -> None:
    """Write model and report into a new folder, or one that is empty.

    Parameters
    ----------
    name
        Of a job in the cluster, or the directory of a local run.

    Raises
    ------
    CommandError
        There is no result, it can't be read or written, or it is not what the ledger has recorded:
        nothing is left in the folder then.
    """
    with for_stream() as screen:
        if (run := run_directory.named(name, namespace)) is not None:
            again = f"dtjob result {shlex.quote(name)} --output {shlex.quote(str(folder))}"
            ledger = spent.complete_ledger(run, again)
            with _staged(folder) as draft:
                _fill(draft, ledger, Folder(run.state), run, screen)
        else:
            job = cluster_jobs.get(name, namespace)
            ledger = spent.of_ledger(_ledger(job))
            _record(ledger)  # before a pod is started for it
            with _staged(folder) as draft, kept_volumes.of_job(job, screen) as volume:
                _fill(draft, ledger, volume, None, screen)
    record = _record(ledger)
    found = {
        "job": ledger.spec.job_name,
        "step": record.step,
        "model": str(folder / MODEL),
        "sha256": record.sha256,
        "report": str(folder / REPORT),
    }
    text = json.dumps(found) + "\n" if as_json else _text(found)
    sys.stdout.write(text)
    if why := standard_streams.unprinted():
        sys.stderr.write(f"not printed, since the standard output failed ({why}): {_text(found)}")


def _fill(
    draft: Path,
    ledger: PrivacyLedger,
    volume: KeptVolume,
    run: RunDirectory | None,
    screen: Display,
) -> None:
    record = _record(ledger)
    screen.waiting(f"fetching {record.path}")
    with (draft / MODEL).open("xb") as file:
        found = _copied(volume, record.path, file)
    if found != record.sha256:
        raise CommandError(
            ExitCode.REFUSED,
            "ResultMismatch",
            f"{line(record.path)} on the volume is not the model that the ledger has recorded: its "
            f"SHA-256 is {found}, the ledger's {record.sha256}. Nothing was kept.",
            "Run the command again, in case it came over torn; else put the file back from a copy.",
        )
    screen.waiting("computing epsilon of what is charged")
    with planning.answered(), PldProcess() as accountant:
        report = privacy_report.build(ledger, accountant, run)
    (draft / REPORT).write_text(privacy_report.dumps(report), encoding="ascii")


def _copied(volume: KeptVolume, path: str, file: BinaryIO) -> str:
    """Copy a file of the volume; its SHA-256, in hex."""
    digest = hashlib.sha256()

    def take(chunk: bytes) -> bool:
        digest.update(chunk)
        file.write(chunk)
        return True

    volume.send(path, take)
    return digest.hexdigest()


def _record(ledger: PrivacyLedger) -> CheckpointRecord:
    """Return the record of the model of a job that has ended with one.

    Raises
    ------
    CommandError
    """
    outcome, record = ledger.status.outcome, ledger.status.checkpoint
    if outcome is None or outcome.result is None or record is None:
        how = "has not ended" if outcome is None else f"has ended without a model: {outcome.reason}"
        raise CommandError(
            ExitCode.REFUSED,
            "NoResult",
            f"job {line(ledger.spec.job_name)} {how}.",
            "Wait for its end." if outcome is None else "",
        )
    return record


def _ledger(job: cluster_jobs.ClusterJob) -> PrivacyLedger:
    try:
        return PrivacyLedger.from_dict(kubectl.get_ledger(job.namespace, job.ledger))
    except ValidationError as error:
        raise BadInput(
            "LedgerUnreadable", f"{job.namespace}/{job.ledger}: {first_error(error)}."
        ) from None


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` at the end of the block, and is gone if that fails."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(
                "FolderNotEmpty",
                f"{folder}: there is something already.",
                "Name a folder that is new, or empty.",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield draft
            draft.chmod(0o755)
            os.rename(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise CommandError(
            ExitCode.REFUSED,
            "ResultNotWritten",
            f"{error.filename or folder}: {error.strerror}. Nothing was kept.",
            "Make room or make it writable, then run the command again.",
        ) from None


def _text(found: dict[str, object]) -> str:
    name = standard_streams.readable(str(found["job"]))
    return (
        f"model of job {name}, step {found['step']}: {found['model']}\n"
        f"sha256 {found['sha256']}, as its ledger has it\n"
        f"privacy report: {found['report']}\n"
    )
