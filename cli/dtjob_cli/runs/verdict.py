"""How a local run ended: success, or the one error that explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dtjob_accounting.rounding import decimal_up
from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.privacy_report import Report
from dtjob_cli.runs import held, local_workers
from dtjob_cli.runs.run_directory import RunDirectory


def check(
    report: Report | None,
    ends: Sequence[local_workers.End],
    *,
    interrupted: bool,
    run: RunDirectory,
    resume_command: Callable[[str], str],
) -> None:
    """Return if the job has succeeded.

    The ledger's outcome speaks first, then the user's Ctrl-C, then the workers' exit codes and
    the last errors in their logs.

    Parameters
    ----------
    report
        Of the ledger after all workers have ended; None if there was never one.
    ends
        The final ends of the workers, in order of time.
    interrupted
        Whether the user asked to stop.
    run
        Named in remedies.
    resume_command
        What a user types to go on, for the reason of the end; empty without one.

    Raises
    ------
    CommandError
        For every end but success.
    """
    state = report["state"] if report else "Unfinished"
    if report and state == "Failed":
        logs = f"Logs: {run.logs}/"
        raise CommandError(ExitCode.FAILED, report["reason"], report["message"], logs)
    if state == "Succeeded":
        return
    if interrupted:
        raise _interrupted(report, resume_command(""))
    raise _by_workers(report, ends, run, resume_command)


def ended_early(report: Report) -> str | None:
    """Return what is to be known of a result of fewer steps than were asked for (rule 12)."""
    if report.get("reason") != Reason.PRIVACY_BUDGET_EXHAUSTED:
        return None
    return (
        f"the run has ended early ({report['reason']}): {report['message']}. The model is that of "
        "the last step done; a larger privacy.replayReserveSteps allows more crashes"
    )


def _interrupted(report: Report | None, resume_command: str) -> CommandError:
    if report is None:
        return CommandError(
            ExitCode.INTERRUPTED,
            "Interrupted",
            "stopped before the first draw: no privacy was spent.",
            "Start again with the same command.",
        )
    plan, spent = report["plan"], report["spent"]
    epsilon = f"ε {decimal_up(spent['epsilon'])} spent, " if "epsilon" in spent else ""
    where = f"the last checkpoint is at step {report['step']} of {plan['steps']}"
    if not report["step"]:
        where = "no step is checkpointed yet"
    return CommandError(
        ExitCode.INTERRUPTED,
        "Interrupted",
        f"stopped: {where}; {epsilon}{spent['draws']} of {plan['reservedDraws']} draws charged, "
        "a lease at a time: what an orderly stop leaves of one serves the next steps.",
        f"Go on with:  {resume_command}",
    )


def _by_workers(
    report: Report | None,
    ends: Sequence[local_workers.End],
    run: RunDirectory,
    resume_command: Callable[[str], str],
) -> CommandError:
    """Explain an end without an outcome by the worker whose exit weighs most."""
    # Of equal exits the coordinator's: the others' are often its echo.
    order = (WorkerExit.CONFIGURATION, WorkerExit.HELD, WorkerExit.SUPERSEDED, WorkerExit.FAILED)
    weighed = sorted(
        ends,
        key=lambda end: (order.index(end.code) if end.code in order else len(order), end.position),
    )
    end = next((end for end in weighed if end.code != WorkerExit.OK), None)
    logs = f"Logs: {run.logs}/"
    if end is None:
        return CommandError(
            ExitCode.REFUSED,
            "Stopped",
            "the workers were stopped from outside before the job was done.",
            f"Go on with:  {resume_command('')}",
        )
    who = f"worker {end.position}"
    message = f"{who}: {end.message}" if end.message else f"{who} ended with {end.how}"
    if end.code == WorkerExit.CONFIGURATION:
        return CommandError(ExitCode.BAD_INPUT, end.reason or "BadConfiguration", message, logs)
    if end.code == WorkerExit.HELD:
        remedy = held.remedy(end.reason, report, run, resume_command(end.reason))
        return CommandError(ExitCode.REFUSED, end.reason or "Refused", message, remedy)
    if end.code == WorkerExit.SUPERSEDED:
        return CommandError(
            ExitCode.REFUSED, "Superseded", "another process has gone on with this run.", logs
        )
    if end.code == WorkerExit.FAILED:
        return CommandError(ExitCode.FAILED, end.reason or "Failed", message, logs)
    message = f"{who} ended with {end.how}, and too often to be started again."
    if end.cause:
        message += f" The last time: {end.cause}."
    if end.message:
        message += f" Its last words: {end.message}"
    return CommandError(
        ExitCode.FAILED, "WorkerDied", message, f"{logs} Go on with:  {resume_command('')}"
    )
