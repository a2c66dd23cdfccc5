"""What no writer can do to a ledger's list of attempts, by which restarts are counted (Rule 14)."""

from __future__ import annotations

from collections.abc import Sequence

from dtjob_api.ledger.ledger_rule import (
    STATUS,
    STATUSES,
    LedgerRule,
    never_removed,
    status_changes,
    status_is,
)
from dtjob_api.ledger.privacy_ledger import MAX_ATTEMPTS_KEPT, AttemptRecord, LedgerStatus
from dtjob_api.reasons import NO_FAILURE

ATTEMPTS_NEVER_VANISH = (
    "status.attempts keeps the newest 20: of a full list the oldest that was no failure makes room "
    "for a new attempt, or the oldest of all, and nothing else leaves it"
)

_NO_FAILURE = (
    f"has(e.end) && ((has(e.reason) && e.reason in {sorted(map(str, NO_FAILURE))}) || "
    "(has(e.ignored) && e.ignored))"
)
_LEAVES = (
    f"(oldSelf.status.attempts.exists(e, {_NO_FAILURE}) "
    f"? oldSelf.status.attempts.filter(e, {_NO_FAILURE})[0].attempt "
    ": oldSelf.status.attempts[0].attempt)"
)


def is_failure(record: AttemptRecord) -> bool:
    """Whether an attempt that has ended counts against `runPolicy.maxRestarts`."""
    return record.reason not in NO_FAILURE and not record.ignored


def leaves(attempts: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """Return the record that makes room for a new attempt's; None while there is room.

    The oldest that was no failure, so that stops and resizes never hide how often a job failed
    within the hour; the oldest of all where each was one.
    """
    if len(attempts) < MAX_ATTEMPTS_KEPT:
        return None
    orderly = (r for r in attempts if r.end is not None and not is_failure(r))
    return next(orderly, attempts[0])


def _are_in_order(status: LedgerStatus) -> bool:
    numbers = [record.attempt for record in status.attempts]
    return numbers == sorted(set(numbers)) and max(numbers, default=0) <= status.attempt


def _lose_none_but_what_leaves(old: list[AttemptRecord], new: list[AttemptRecord]) -> bool:
    leaving = leaves(old) if len(new) == MAX_ATTEMPTS_KEPT else None
    lost = {record.attempt for record in old} - {record.attempt for record in new}
    return lost <= ({leaving.attempt} if leaving else set())


def _change_by_their_end(old: LedgerStatus, new: LedgerStatus) -> bool:
    after: dict[int, list[AttemptRecord]] = {}
    for record in new.attempts:
        after.setdefault(record.attempt, []).append(record)
    return all(
        now == was or (was.end is None and now.end is not None and now.start == was.start)
        for was in old.attempts
        for now in after.get(was.attempt, [])
    )


def _grow_by_the_one_that_begins(old: LedgerStatus, new: LedgerStatus) -> bool:
    known = {record.attempt for record in old.attempts}
    return all(
        record.attempt == new.attempt > old.attempt
        for record in new.attempts
        if record.attempt not in known
    )


ATTEMPT_RULES: tuple[LedgerRule, ...] = (
    LedgerRule(
        "attempts-are-in-order",
        14,
        "status.attempts",
        f"{STATUS} || !has(self.status.attempts) || "
        "(self.status.attempts.map(n, n.attempt).isSorted() && "
        "self.status.attempts.all(n, n.attempt <= self.status.attempt && "
        "self.status.attempts.exists_one(m, m.attempt == n.attempt)))",
        status_is(lambda status, _: _are_in_order(status)),
        "status.attempts are in order, one entry for an attempt, none later than status.attempt",
    ),
    never_removed(
        "attempts-stay",
        14,
        "status.attempts",
        "oldSelf.status.attempts.all(o, self.status.attempts.exists(n, n.attempt == o.attempt) || "
        f"(oldSelf.status.attempts.size() == {MAX_ATTEMPTS_KEPT} && "
        f"self.status.attempts.size() == {MAX_ATTEMPTS_KEPT} && o.attempt == {_LEAVES}))",
        _lose_none_but_what_leaves,
        ATTEMPTS_NEVER_VANISH,
    ),
    LedgerRule(
        "attempts-change-by-their-end",
        14,
        "status.attempts",
        "!has(oldSelf.status) || !has(oldSelf.status.attempts) || "
        f"{STATUS} || !has(self.status.attempts) || oldSelf.status.attempts.all(o, "
        "self.status.attempts.all(n, n.attempt != o.attempt || n == o || "
        "(!has(o.end) && has(n.end) && n.start == o.start)))",
        status_changes(_change_by_their_end),
        "an entry of status.attempts never changes once it has an end, and before it only to have "
        "one",
    ),
    LedgerRule(
        "attempts-grow-by-the-one-that-begins",
        14,
        "status.attempts",
        f"{STATUSES} || !has(self.status.attempts) || "
        "self.status.attempts.all(n, (has(oldSelf.status.attempts) && "
        "oldSelf.status.attempts.exists(o, o.attempt == n.attempt)) || "
        "(n.attempt == self.status.attempt && n.attempt > oldSelf.status.attempt))",
        status_changes(_grow_by_the_one_that_begins),
        "a new entry of status.attempts is of the attempt that begins with this write",
    ),
)
