"""What the end of an attempt means for its job, given what the ledger has charged. Pure.

A failure is final only where nothing is lost by it: before the first draw is charged, or where
another start would spend draws to find the same again. What a start finds wrong with task, image
or model later on holds the job until a person has put it right. A held pod looks again by itself,
but not after an attempt that has lost a lease, where the next may lose its own in the same way: in
vain, or beyond the reserve (rule 12). A held attempt counts against no limit of restarts.
"""

from __future__ import annotations

from dtjob_api.ledger.lease_rules import next_unused_draw
from dtjob_api.ledger.privacy_ledger import Lease, LedgerStatus, PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End, EndKind
from dtjob_trainer.ledger.lease import has_closed, has_leased, next_lease

#: A rank that computed wrong does so again, and its steps would be published.
_FINAL_WHENEVER = frozenset({Reason.REPLICAS_DIVERGED})


def weigh(end: End, status: LedgerStatus, attempt: int) -> End:
    """The end of `attempt` as its job takes it: a failure that only holds the job is HELD.

    Parameters
    ----------
    status
        The newest, after all ranks of the attempt have ended.
    """
    if end.kind is not EndKind.FAILED or end.reason in _FINAL_WHENEVER:
        return end
    if status.charged == 0 or has_leased(status, attempt):
        return end
    return end.model_copy(update={"kind": EndKind.HELD})


def risks_a_lease(ledger: PrivacyLedger, attempt: int) -> str | None:
    """Why no other attempt may follow a held one by itself; None where one may."""
    status, reserve = ledger.status, ledger.spec.plan.replay_reserve_steps
    checkpoint = status.checkpoint
    lost = has_leased(status, attempt) and not has_closed(status, attempt)
    if not lost or _next_lease(ledger) is None:
        return None
    if checkpoint is None or checkpoint.attempt != attempt or checkpoint.step == 0:
        # The checkpoint of step 0 comes with the lease, and keeps no step.
        why = (
            "its lease is charged and no step of it was kept, which another attempt may find again"
        )
    elif is_uncovered(ledger):
        why = (
            f"the reserve of {reserve} draws does not cover another lost lease; {status.charged} "
            f"draws are charged for {checkpoint.step} steps"
        )
    else:
        return None
    return (
        f"{why}: put it right, then go on with --resume (in a cluster: suspend the job and resume "
        "it, by spec.suspend)"
    )


def is_uncovered(ledger: PrivacyLedger) -> bool:
    """Rule 12: whether another attempt that loses its first lease takes a step from the job."""
    lease, plan = _next_lease(ledger), ledger.spec.plan
    return lease is not None and lease.to_draw - lease.from_step > plan.replay_reserve_steps


def _next_lease(ledger: PrivacyLedger) -> Lease | None:
    """What another attempt would begin with; where it gets no lease it ends the job, in order."""
    status = ledger.status
    done = status.checkpoint.step if status.checkpoint else 0
    return next_lease(ledger, max(1, status.attempt), next_unused_draw(status), done)
