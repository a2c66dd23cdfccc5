"""What a run that was refused and held has kept, what it has lost, and what to do about it."""

from __future__ import annotations

from dtjob_api.reasons import TRAINING_REFUSED, Reason
from dtjob_cli.report import Report
from dtjob_cli.runs import RunDirectory

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
        return (
            "Nothing is lost: no draw was charged. After the remedy, start again with the same "
            "command."
        )
    go_on = f"then go on with:  {resume_command}"
    kept = f"The checkpoint of step {report['step']} is intact"
    if not report["step"]:
        kept = "No step is checkpointed yet"
    match reason:
        case Reason.PRIVACY_STATE_LOST:
            return (
                "Nothing was trained, but the ledger lacks draws that were spent. Put its newest "
                f"version back into {run.ledger}/, or raise it (dtjob ledger restore {run.path}), "
                f"{go_on}"
            )
        case Reason.CHECKPOINT_LOST:
            return (
                "Nothing was trained. What was charged stays charged, and without a checkpoint the "
                f"model is lost: put {run.state}/ back from a copy, {go_on}"
            )
        case Reason.STALLED:
            return (
                f"{kept}; what the attempts that stalled have leased stays charged, and one more "
                "takes another lease. Raise runPolicy.stallSeconds in the manifest, or see to what "
                f"it waits for, {go_on}"
            )
        case Reason.LEDGER_UNREADABLE:
            cure = f"Make {run.ledger}/ readable and writable, or put it back from a copy"
        case Reason.STORAGE_FULL:
            cure = f"Make room on the disk of {run.state}/"
        case Reason.STORAGE_UNUSABLE:
            cure = f"Make {run.state}/ readable and writable"
        case _ if reason in TRAINING_REFUSED:
            # Found at a start, before the attempt leased anything.
            return f"Nothing is lost: no draw was charged for it. Put it right, {go_on}"
        case _:
            cure = "Put it right"
    return f"{kept}; {_SINCE}. {cure}, {go_on}"
