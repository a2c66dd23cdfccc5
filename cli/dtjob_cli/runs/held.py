"""What a run that was refused and held has kept, what it has lost, and what to do about it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_cli.errors import then
from dtjob_cli.privacy_report import Report
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger import durable
from dtjob_trainer.worker import processes

#: Reasons that a run in training can meet too.
_MET_IN_TRAINING = frozenset(
    {Reason.LEDGER_UNREADABLE, Reason.STORAGE_FULL, Reason.STORAGE_UNUSABLE}
)
#: Refused while it trained, or for what a run in training can meet too.
_SINCE = "steps done since are done again, and draws leased since stay charged"


def remedy(reason: str, report: Report | None, run: RunDirectory, resume_command: str) -> str:
    """Return what is true of the run, and how it goes on.

    Parameters
    ----------
    reason
        Of the refusal, as the worker gave it.
    report
        Of the ledger after all workers have ended; None if there was never one.
    """
    if report is None:
        cure = _cure(reason, run)
        return (
            f"Nothing is lost: no draw was charged. {cure}, then start again with the same command."
        )
    go_on = then(resume_command)
    checkpoint, gone = f"The checkpoint of step {report['step']} is intact", _gone(report)
    if not report["step"]:
        checkpoint = "No step is checkpointed yet"
    elif gone is not None:
        checkpoint = f"The checkpoint of step {report['step']} is not there: {gone} is gone"
    match reason:
        case Reason.PRIVACY_STATE_LOST:
            return (
                "Nothing was trained, but the ledger lacks draws that were spent. Put its newest "
                f"version back into {run.ledger}/, or raise it (dtjob ledger restore "
                f"{shlex.quote(str(run.path))}), "
                f"{go_on}"
            )
        case Reason.CHECKPOINT_LOST:
            return (
                "Nothing was trained. What was charged stays charged, and without a checkpoint the "
                f"model is lost: put {run.state}/ back from a copy, {go_on}"
            )
        case Reason.STALLED:
            return (
                f"{checkpoint}; what the attempts that stalled have leased stays charged, and one "
                "more takes another lease. Raise runPolicy.stallSeconds in the manifest, or see to "
                f"what it waits for, {go_on}"
            )
    if reason in TRAINING_HELD - _MET_IN_TRAINING:
        # Found at a start, before the attempt leased anything.
        return f"Nothing is lost: no draw was charged for it. {_cure(reason, run)}, {go_on}"
    if not report["spent"]["draws"]:
        return f"Nothing is lost: no draw was charged. {_cure(reason, run)}, {go_on}"
    return f"{checkpoint}; {_SINCE}. {_cure(reason, run, gone)}, {go_on}"


def _gone(report: Report) -> str | None:
    """Return what has to come back before the run's checkpoint can be read; None if it is there."""
    checkpoint = report.get("checkpoint")
    if checkpoint is None or not _is_gone(Path(checkpoint)):
        return None
    gone = str(durable.missing(Path(checkpoint)))
    return gone if gone == checkpoint else f"{gone}/"


def _is_gone(path: Path) -> bool:
    """Return whether nothing is there, and not that it may not be looked at."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _cure(reason: str, run: RunDirectory, gone: str | None = None) -> str:
    """Return what to put right, as the beginning of a sentence."""
    match reason:
        case Reason.STORAGE_UNUSABLE if gone is not None:
            return f"Put {gone} back where it was, or from a copy"
        case Reason.LEDGER_UNREADABLE:
            return f"Make {run.ledger}/ readable and writable, or put it back from a copy"
        case Reason.STORAGE_FULL:
            return f"Make room on the disk of {run.state}/"
        case Reason.STORAGE_UNUSABLE if not run.state.exists():
            return f"Put {run.state}/ back where it was"
        case Reason.STORAGE_UNUSABLE:
            return f"Make {run.state}/ readable and writable"
        case processes.RANKS_CANNOT_START:
            return (
                f"{run.logs}/ has the words of the process that could not start. See that "
                f"{sys.executable} -c 'import torch, opacus' works in this shell, that its memory "
                "is not limited (ulimit -v, a container's limit) and that other programs leave it "
                "some"
            )
    return "Put it right"
