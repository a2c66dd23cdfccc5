"""The arithmetic of leases (rule 10); no clock, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from dtjob_api.ledger.privacy_ledger import (
    MAX_SEGMENTS,
    UNKNOWN_IMAGE,
    CheckpointRecord,
    Lease,
    LedgerStatus,
    PrivacyLedger,
    Provenance,
    Segment,
)

#: Of one who says nothing of what made its draws.
_NOTHING_KNOWN = Provenance(image=UNKNOWN_IMAGE)


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
    ledger: PrivacyLedger, lease: Lease, record: CheckpointRecord, provenance: Provenance
) -> LedgerStatus:
    """The status that charges `lease` and names the checkpoint it starts from (rules 10, 14).

    Another provenance opens a segment; where there is no room for it, two others become one.
    """
    status, plan = ledger.status, ledger.spec.plan
    segment = Segment(
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        draws=max(0, lease.to_draw - status.charged),
        **dict(provenance),
    )
    segments = list(status.segments)
    if segments and segments[-1].provenance == provenance:
        last = segments.pop()
        segment = last.model_copy(update={"draws": last.draws + segment.draws})
    elif len(segments) >= MAX_SEGMENTS:
        segments = _with_room(segments)
    return status.model_copy(
        update={
            "lease": lease,
            "charged": max(status.charged, lease.to_draw),
            "segments": [*segments, segment],
            "checkpoint": record,
        }
    )


def _with_room(segments: Sequence[Segment]) -> list[Segment]:
    """Join two neighbours: those of the most in common, and of such the oldest.

    All are of the plan's noise and sample rate, so that epsilon stays what it is. A provenance
    that nobody can keep is no reason to lose a model.
    """
    fields = Provenance.model_fields

    def shared(at: int) -> list[str]:
        one, other = segments[at : at + 2]
        return [name for name in fields if getattr(one, name) == getattr(other, name)]

    at = max(range(len(segments) - 1), key=lambda at: len(shared(at)))
    one, other = segments[at : at + 2]
    lost = {name: value for name, value in _NOTHING_KNOWN if name not in shared(at)}
    joined = one.model_copy(update={"draws": one.draws + other.draws, **lost})
    return [*segments[:at], joined, *segments[at + 2 :]]
