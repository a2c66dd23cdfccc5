"""What no writer can do to a ledger's lease: no draw is used twice (Rule 10)."""

from __future__ import annotations

from dtjob_api.ledger.ledger_rule import (
    STATUS,
    STATUSES,
    LedgerRule,
    has_status,
    never_removed,
    status_changes,
    status_is,
)
from dtjob_api.ledger.privacy_ledger import Lease, LedgerStatus, PrivacyLedger

_NEW_LEASE = (
    "has(self.status) && has(self.status.lease) && !(has(oldSelf.status) && "
    "has(oldSelf.status.lease) && self.status.lease.attempt == oldSelf.status.lease.attempt && "
    "self.status.lease.fromDraw == oldSelf.status.lease.fromDraw && "
    "self.status.lease.toDraw == oldSelf.status.lease.toDraw && "
    "self.status.lease.fromStep == oldSelf.status.lease.fromStep)"
)


def _is_granted(old: Lease | None, new: Lease | None) -> bool:
    return new is not None and (old is None or _identity(old) != _identity(new))


def _identity(lease: Lease) -> tuple[int, int, int, int]:
    return lease.attempt, lease.from_draw, lease.to_draw, lease.from_step


_NEXT_UNUSED_DRAW = (
    # An administrator who has raised the ledger has charged the rest of its lease whole.
    "(has(oldSelf.status) ? (has(oldSelf.status.lease) && has(oldSelf.status.lease.closedAt) && "
    "oldSelf.status.lease.toDraw == oldSelf.status.charged && !(has(oldSelf.status.restored) && "
    "oldSelf.status.lease.attempt <= oldSelf.status.restored) ? "
    "oldSelf.status.lease.closedAt : oldSelf.status.charged) : 0)"
)


def next_unused_draw(status: LedgerStatus) -> int:
    """Rule 10: the first draw that no attempt may have used, seen from a new attempt."""
    lease = status.lease
    if lease is None or lease.closed_at is None:
        return status.charged
    # A ledger that was raised to its volume knew nothing of who used the rest of its lease.
    is_newest = lease.to_draw == status.charged and lease.attempt > (status.restored or 0)
    return lease.closed_at if is_newest else status.charged


def _begins_at_an_unused_draw(old: PrivacyLedger, new: PrivacyLedger) -> bool:
    # The first status of all may be one from a backup, taken between two leases. The volume's
    # journals show whether it is an old one.
    if not has_status(old) or not has_status(new):
        return True
    lease = new.status.lease
    if lease is None or not _is_granted(old.status.lease, lease):
        return True
    return lease.attempt == new.status.attempt and lease.from_draw >= next_unused_draw(old.status)


def _keeps_its_end(old: LedgerStatus, new: LedgerStatus) -> bool:
    before, after = old.lease, new.lease
    if before is None or after is None or _is_granted(before, after):
        return True
    return before.closed_at is None or after.closed_at == before.closed_at


def _is_closed_by_its_owner(old: LedgerStatus, new: LedgerStatus) -> bool:
    # Else who comes later could hand out again what its owner used.
    before, after = old.lease, new.lease
    if after is None or after.closed_at is None:
        return True
    if before is None or _is_granted(before, after):
        return False
    return before.closed_at is not None or after.attempt == new.attempt


LEASE_RULES: tuple[LedgerRule, ...] = (
    LedgerRule(
        "lease-ends-where-it-begins-or-later",
        10,
        "status.lease.toDraw",
        "self.fromDraw <= self.toDraw",
        status_is(lambda s, _: s.lease is None or s.lease.from_draw <= s.lease.to_draw),
        "must not be less than fromDraw",
        within="status.lease",
    ),
    LedgerRule(
        "lease-is-closed-within",
        10,
        "status.lease.closedAt",
        "!has(self.closedAt) || (self.fromDraw <= self.closedAt && self.closedAt <= self.toDraw)",
        status_is(
            lambda s, _: (
                s.lease is None
                or s.lease.closed_at is None
                or s.lease.from_draw <= s.lease.closed_at <= s.lease.to_draw
            )
        ),
        "must lie within the lease",
        within="status.lease",
    ),
    never_removed(
        "lease-stays",
        10,
        "status.lease",
        "self.status.lease.attempt >= oldSelf.status.lease.attempt && "
        "self.status.lease.toDraw >= oldSelf.status.lease.toDraw",
        lambda old, new: new.attempt >= old.attempt and new.to_draw >= old.to_draw,
        "status.lease can't be removed, nor replaced by an older or a shorter one",
    ),
    LedgerRule(
        "lease-is-charged",
        10,
        "status.lease",
        f"{STATUS} || !has(self.status.lease) || "
        "(self.status.lease.toDraw <= self.status.charged && "
        "self.status.lease.attempt <= self.status.attempt)",
        status_is(
            lambda s, _: (
                s.lease is None or (s.lease.to_draw <= s.charged and s.lease.attempt <= s.attempt)
            )
        ),
        "status.lease must lie within status.charged and belong to no later attempt than "
        "status.attempt",
    ),
    LedgerRule(
        "lease-begins-at-an-unused-draw",
        10,
        "status.lease",
        f"!({_NEW_LEASE}) || ((!has(oldSelf.status) || "
        "self.status.lease.attempt == self.status.attempt) && "
        f"self.status.lease.fromDraw >= {_NEXT_UNUSED_DRAW})",
        _begins_at_an_unused_draw,
        "a new status.lease belongs to the current attempt and begins at a draw that was "
        "never leased, or at closedAt of the one before: no draw is used twice",
    ),
    LedgerRule(
        "lease-comes-before-the-outcome",
        11,
        "status.lease",
        f"!({_NEW_LEASE}) || !has(oldSelf.status) || !has(oldSelf.status.outcome)",
        status_changes(
            lambda old, new: old.outcome is None or not _is_granted(old.lease, new.lease)
        ),
        "there is no lease after status.outcome",
    ),
    LedgerRule(
        "lease-is-closed-once",
        10,
        "status.lease",
        f"({_NEW_LEASE}) || {STATUS} || !has(self.status.lease) || "
        "!has(oldSelf.status) || !has(oldSelf.status.lease) || "
        "!has(oldSelf.status.lease.closedAt) || (has(self.status.lease.closedAt) && "
        "self.status.lease.closedAt == oldSelf.status.lease.closedAt)",
        status_changes(_keeps_its_end),
        "status.lease.closedAt is set once",
    ),
    LedgerRule(
        "lease-is-closed-by-its-owner",
        10,
        "status.lease",
        f"{STATUSES} || !has(self.status.lease) || "
        f"!has(self.status.lease.closedAt) || (!({_NEW_LEASE}) && "
        "(has(oldSelf.status.lease.closedAt) || "
        "self.status.lease.attempt == self.status.attempt))",
        status_changes(_is_closed_by_its_owner),
        "status.lease.closedAt is set by the lease's own attempt, and after the lease was granted",
    ),
)
