"""The ledger as the workers see it: one object, read whole, written by compare-and-swap.

`Ledger` is what every back end offers (a folder of versions on one machine, a PrivacyLedger in a
cluster); `update` is the one way in which the trainer writes: fenced by the attempt,
retried on a conflict, and sure of its own write when an answer was lost (rule 10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dtjob_api.ledger.privacy_ledger import (
    MAX_MESSAGE_LENGTH,
    LedgerSpec,
    LedgerStatus,
    PrivacyLedger,
)


class LedgerError(Exception):
    """Base of all that can go wrong with the ledger; the message names it and the remedy."""


class LedgerUnreadable(LedgerError):
    """The newest version can't be read or contradicts the one before it. Nothing was written.

    An older version is never taken in its place: it would give spent draws out again.
    """


class LedgerMissing(LedgerUnreadable):
    """There is no ledger here, or not yet. Nothing is trained without one (rule 11)."""


class LedgerRejected(LedgerError):
    """The new version breaks a rule of the ledger; it was not written."""


class Conflict(LedgerError):
    """Somebody else wrote since the version was read; nothing was written."""


class AnswerLost(LedgerError):
    """The write may or may not have happened; only reading again can tell."""


class Superseded(LedgerError):
    """A newer attempt holds the ledger, or the job has its outcome: write no more."""


@dataclass(frozen=True)
class Versioned:
    """A ledger and the opaque name of the version it was read at."""

    version: str
    ledger: PrivacyLedger


class Ledger(Protocol):
    """A job's PrivacyLedger, by whatever store keeps it.

    Calls block (use `asyncio.to_thread` on an event loop) and may come from several
    threads and processes at once. A store that can't be reached now is waited for inside the
    call, so that a lease outlives a restart of the API server; errors are for what waiting
    does not cure.
    """

    def read(self) -> Versioned:
        """The newest version.

        Raises
        ------
        LedgerUnreadable
            There is none, or it can't be trusted.
        """
        ...

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        """Write `status` if `versioned` is still the newest version.

        Raises
        ------
        Conflict, AnswerLost, LedgerRejected
        """
        ...

    def wait(self, version: str, timeout: float) -> Versioned | None:
        """The newest version once it is not `version`, or None after `timeout` seconds.

        Raises
        ------
        LedgerUnreadable
        """
        ...


class OperatorLedger(Ledger, Protocol):
    """A ledger whose user is also the operator, as on one machine, where the CLI plays it."""

    def replace_spec(self, versioned: Versioned, spec: LedgerSpec) -> Versioned:
        """Write `spec` if `versioned` is still the newest version.

        Raises
        ------
        Conflict, AnswerLost, LedgerRejected
        """
        ...


Change = Callable[[PrivacyLedger], LedgerStatus | None]
"""From the newest ledger to the status to write, or to None when it already says so."""


def update(
    ledger: Ledger, attempt: int, change: Change, *, after_outcome: bool = False
) -> Versioned:
    """Rule 10: write `change` while `attempt` is the current one, and exactly once.

    Parameters
    ----------
    attempt
        The writer's. Two writers share it (a supervisor and its rank 0), so a
        conflict alone does not mean that this attempt is over.
    change
        Called with each fresh version until the write holds. It recognises its own write, whose
        answer may have been lost, and returns None for it.
    after_outcome
        Whether the write makes sense once the job has its outcome.

    Raises
    ------
    Superseded
        A newer attempt has begun, or the outcome is set.
    LedgerRejected, LedgerUnreadable
    """
    while True:
        versioned = ledger.read()
        status = versioned.ledger.status
        if status.attempt != attempt:
            raise Superseded(
                f"attempt {attempt} was superseded: the ledger is at attempt {status.attempt}"
            )
        changed = change(versioned.ledger)
        if changed is None:
            return versioned
        if status.outcome is not None and not after_outcome:
            raise Superseded(
                f"attempt {attempt} can't write: the job has ended "
                f"({status.outcome.state}, {status.outcome.reason})"
            )
        try:
            return ledger.replace_status(versioned, changed)
        except (Conflict, AnswerLost):
            continue


def clipped(message: str, length: int = MAX_MESSAGE_LENGTH) -> str:
    """`message` within the length that the ledger takes."""
    if len(message) <= length:
        return message
    return message[: length - 1] + "…"
