"""The arithmetic of leases (rule 10); no clock, no I/O."""

from __future__ import annotations

from dtjob_api.ledger.privacy_ledger import (
    MAX_SEGMENTS,
    CheckpointRecord,
    Formats,
    Lease,
    LedgerStatus,
    PrivacyLedger,
    Segment,
)
from dtjob_api.shown import line
from dtjob_trainer.ledger.backend import LedgerRejected


def has_leased(status: LedgerStatus, attempt: int) -> bool:
    """Whether the attempt came so far as to train: before its first step it takes a lease."""
    return status.lease is not None and status.lease.attempt == attempt


def has_closed(status: LedgerStatus, attempt: int) -> bool:
    """Whether the attempt has recorded what it left of its lease: else the lease is lost."""
    lease = status.lease
    return lease is not None and lease.attempt == attempt and lease.closed_at is not None


def next_lease(ledger: PrivacyLedger, attempt: int, next_draw: int, step: int) -> Lease | None:
    """Rule 10: the lease after a durable checkpoint of `step`; None where none is possible.

    It has min(n, T - step, reserved - next_draw) draws: what an orderly closed lease left is
    used first and charged no second time, and no step is further than n from the checkpoint.
    """
    plan = ledger.spec.plan
    length = min(plan.lease_steps, plan.steps - step, ledger.spec.reserved_draws - next_draw)
    if length <= 0:
        return None
    return Lease(attempt=attempt, from_draw=next_draw, to_draw=next_draw + length, from_step=step)


def with_lease(
    ledger: PrivacyLedger, lease: Lease, record: CheckpointRecord, image: str, formats: Formats
) -> LedgerStatus:
    """The status that charges `lease` and names the checkpoint it starts from (rules 10, 14).

    Another image, or other formats, open a segment.

    Raises
    ------
    LedgerRejected
        The image is another once more, and the ledger has no room for a segment of it.
    """
    status, plan = ledger.status, ledger.spec.plan
    segment = Segment(
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        draws=max(0, lease.to_draw - status.charged),
        image=image,
        formats=formats,
    )
    segments = list(status.segments)
    if segments and (segments[-1].image, segments[-1].formats) == (image, formats):
        last = segments.pop()
        segment = last.model_copy(update={"draws": last.draws + segment.draws})
    elif len(segments) >= MAX_SEGMENTS:
        raise LedgerRejected(
            f"status.segments has {len(segments)} segments, the most that a ledger keeps, and each "
            f"change of spec.image opens one: set spec.image back to {line(segments[-1].image)}, "
            "that of the last segment, and go on with it to the end"
        )
    return status.model_copy(
        update={
            "lease": lease,
            "charged": max(status.charged, lease.to_draw),
            "segments": [*segments, segment],
            "checkpoint": record,
        }
    )
