"""What the end of an attempt means for its job, given what the ledger has charged. Pure.

A failure is final only where nothing is lost by it: before the first draw is charged, or where
another start would spend draws to find the same again. What a start finds wrong with task, image
or model later on holds the job until a person has put it right. A held pod looks again by itself,
but not after an attempt that has spent a lease in vain.
"""

from __future__ import annotations

from dtjob_api.ledger import LedgerStatus
from dtjob_api.reasons import Reason
from dtjob_trainer.gang import End, EndKind

#: Who computed wrong does so again, and steps of it are published.
_FINAL_WHENEVER = frozenset({Reason.REPLICAS_DIVERGED})


def weigh(end: End, status: LedgerStatus, attempt: int) -> End:
    """The end of ``attempt`` as its job takes it: a failure that only holds the job is REFUSED.

    Parameters
    ----------
    status
        The newest, after all ranks of the attempt have ended.
    """
    if end.kind is not EndKind.FAILED or end.reason in _FINAL_WHENEVER:
        return end
    if status.charged == 0 or has_leased(status, attempt):
        return end
    return end.model_copy(update={"kind": EndKind.REFUSED})


def spent_in_vain(status: LedgerStatus, attempt: int) -> bool:
    """Whether the attempt has taken a lease and published no step: so may the next one."""
    made = status.checkpoint
    progressed = made is not None and made.attempt == attempt and made.step > 0
    return has_leased(status, attempt) and not progressed


def has_leased(status: LedgerStatus, attempt: int) -> bool:
    """Whether the attempt came so far as to train: before its first step it takes a lease."""
    return status.lease is not None and status.lease.attempt == attempt
