"""Whether an earlier run may go on, and the order to its workers to do so."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dtjob_api.job.run_policy import RunPolicy
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import Order, OrderState, PrivacyLedger
from dtjob_cli import manifests
from dtjob_cli.display import Display
from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_cli.interrupts import Interrupts
from dtjob_cli.manifests import Manifest
from dtjob_cli.runs import run_directory
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger.backend import AnswerLost, LedgerError, LedgerUnreadable, Versioned
from dtjob_trainer.ledger.durable import VolumeFull
from dtjob_trainer.ledger.file_ledger import FileLedger

# How long the workers of a command that was killed have to finish their step and leave.
LEAVE_SECONDS = 120.0
POLL_SECONDS = 0.1


@contextmanager
def taken_over(run: RunDirectory, screen: Display, interrupts: Interrupts) -> Iterator[int]:
    """Hold the run; workers that a killed command left behind are waited for, a while.

    Who holds it is not known: it may as well be a command that trains it.

    Raises
    ------
    CommandError
        If it is in use by somebody who does not leave, or if the wait is interrupted.
    """
    deadline = time.monotonic() + LEAVE_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(run_directory.locked(run))
                break
            except run_directory.RunInUse:
                pass
            except OSError as error:
                raise CommandError(
                    ExitCode.REFUSED,
                    "RunDirectory",
                    f"{run.lock}: {error.strerror}. Nothing was changed.",
                    f"Let user {os.getuid()} write into {run.path}, then try again.",
                ) from None
            interrupts.check(f"stopped: {run.path} is still in use, nothing was changed.")
            if time.monotonic() > deadline:
                raise CommandError(
                    ExitCode.REFUSED,
                    "RunInUse",
                    f"{run.path} is still in use after {LEAVE_SECONDS:.0f} s: another command "
                    "trains it, or its workers have not stopped. Nothing was changed.",
                    "Wait until that command has ended, or stop it with Ctrl-C; workers without a "
                    f"command are named by fuser {run.lock} and can be killed. Then try again.",
                )
            screen.waiting(
                f"{run.path} is in use: another command trains it, or the workers of one that was "
                f"killed finish their step; waiting up to {LEAVE_SECONDS:.0f} s for it"
            )
            time.sleep(POLL_SECONDS)
        yield lock


def readable(run: RunDirectory) -> Versioned:
    """Return the run's ledger; without a readable one nothing goes on (rule 11).

    Raises
    ------
    CommandError
        If there is none or it can't be trusted. It is never made anew: that would give draws
        that are spent out again.
    """
    if run.ledger_lost:
        raise CommandError(
            ExitCode.REFUSED,
            "PrivacyStateLost",
            f"{run.path} has a journal but no ledger: what it has spent is not known.",
            f"Put {run.ledger} back from a copy, or start a new run and count this one as spent "
            "in full.",
        )
    if not run.begun:
        raise BadInput(
            "NeverStarted",
            f"{run.path} never had a ledger: it ended before its first draw.",
            "Leave out --resume to start a new run.",
        )
    return ledger_of(run)


def ledger_of(run: RunDirectory) -> Versioned:
    """Return the newest version of the run's ledger.

    Raises
    ------
    CommandError
        If it can't be read.
    """
    try:
        return FileLedger(run.ledger).read()
    except LedgerUnreadable as error:
        raise CommandError(ExitCode.REFUSED, "LedgerUnreadable", f"{error}.") from None


def check_unchanged(run: RunDirectory, manifest: Manifest) -> None:
    """Refuse a manifest that disagrees with the run's in what never changes.

    Raises
    ------
    BadInput
        Names the field, both values and the remedy.
    """
    before = manifests.read(run.manifest)
    if before["metadata"]["name"] != manifest["metadata"]["name"]:
        found: str | None = (
            f"metadata.name: {before['metadata']['name']} in the run, "
            f"now {manifest['metadata']['name']}"
        )
    else:
        found = run_directory.difference(before, manifest)
    if found:
        raise BadInput(
            "FieldChanged",
            f"{found}. What a run has promised and paid for never changes.",
            f"Resume with {run.manifest}, or leave out --resume to start a new run.",
        )


def next_order(run: RunDirectory, versioned: Versioned, workers: int, policy: RunPolicy) -> None:
    """Tell `workers` workers, as the operator does, to form a new generation under a run policy.

    Raises
    ------
    CommandError
        If the ledger can't be written.
    """
    spec = versioned.ledger.spec
    order = Order(generation=spec.run.generation + 1, workers=workers, state=OrderState.RUN)
    in_force = PolicyInForce.of(policy)
    with written(run):
        changed = spec.model_copy(update={"run": order, "run_policy": in_force})
        FileLedger(run.ledger).replace_spec(versioned, changed)


@contextmanager
def written(run: RunDirectory) -> Iterator[None]:
    """Report why the version of the run's ledger that this block writes was not written.

    Raises
    ------
    CommandError
    """
    try:
        yield
    except VolumeFull as error:
        raise CommandError(
            ExitCode.REFUSED,
            "LedgerNotWritten",
            f"{error.strerror}.",
            f"Make room on the disk of {run.ledger}/, then run the command again.",
        ) from None
    except AnswerLost as error:
        raise CommandError(
            ExitCode.REFUSED,
            "LedgerNotWritten",
            f"{error}. It is there all the same, and may be lost in a crash of the machine.",
            "See that the disk is sound, then run the command again, which goes on from what is "
            "there.",
        ) from None
    except LedgerError as error:
        raise CommandError(ExitCode.REFUSED, "LedgerNotWritten", f"{error}.") from None


def summary(run: RunDirectory, ledger: PrivacyLedger) -> str:
    """Return from where the run goes on, in words."""
    status, plan = ledger.status, ledger.spec.plan
    step = status.checkpoint.step if status.checkpoint else 0
    return (
        f"{run.path}: goes on from step {step} of {plan.steps}; {status.charged} of "
        f"{ledger.spec.reserved_draws} draws are charged"
    )
