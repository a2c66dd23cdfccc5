"""What no writer can do to a ledger: each rule once, in CEL and in Python side by side.

`dtjob_api.schema.crd` gives the CEL to the API server, which holds every writer to it. A ledger in
a folder has nobody but its writers, and a ledger in a file comes from anywhere: they are held to
the same rules by `broken`.
"""

from __future__ import annotations

from typing import Any

from dtjob_api.ledger.attempt_rules import ATTEMPT_RULES
from dtjob_api.ledger.lease_rules import LEASE_RULES
from dtjob_api.ledger.ledger_rule import (
    STATUS,
    STATUSES,
    LedgerRule,
    has_status,
    never_removed,
    status_changes,
    status_is,
)
from dtjob_api.ledger.privacy_ledger import (
    CheckpointRecord,
    LedgerSpec,
    LedgerStatus,
    Outcome,
    PrivacyLedger,
    VolumeRecord,
)
from dtjob_api.ledger.proven import proves_more
from dtjob_api.ledger.spec_rules import SPEC_RULES

CHARGED_NEVER_DECREASES = (
    "status.charged never decreases: what is charged is spent, whatever became of the run"
)
STATUS_NEVER_VANISHES = (
    "status can't be removed: it is the record of what has been spent; restore it"
)
RESERVED_COVERS_CHARGED = (
    "status.charged must not exceed spec.reservedDraws, and spec.reservedDraws must not fall "
    "below it"
)
ATTEMPT_RISES_BY_ONE = (
    "status.attempt rises by one, or to status.restored in the write that raises the ledger"
)
OUTCOME_IS_FINAL = "status.outcome is set once; it never changes and can't be removed"


def broken(old: PrivacyLedger | None, new: PrivacyLedger) -> list[LedgerRule]:
    """Return the rules that `new` breaks as the version after `old`.

    Parameters
    ----------
    old
        The stored version. With None, as of the first, the rules on changes are left out.
    """
    rules = (each for each in LEDGER_RULES if old is not None or not each.is_on_changes)
    return [each for each in rules if not each.permits(old or new, new)]


def breaches(old: PrivacyLedger | None, new: PrivacyLedger) -> list[str]:
    """Return what is wrong with `new` as the version after `old`; empty for a sound one."""
    return [each.breach(old, new) for each in broken(old, new)]


def follows(old: CheckpointRecord, new: CheckpointRecord) -> bool:
    """Return whether a record of a checkpoint may take the place of another."""
    return new == old or (
        new.attempt >= old.attempt
        and new.charged >= old.charged
        and new.step >= old.step
        and (new.attempt > old.attempt or new.step > old.step)
    )


def _is_same(old: Outcome, new: Outcome) -> bool:
    return new == old and _is_same_json(old.result, new.result)


def _is_same_json(old: Any, new: Any) -> bool:
    # To Python true is 1.
    match old, new:
        case dict(), dict():
            return old.keys() == new.keys() and all(_is_same_json(old[k], new[k]) for k in old)
        case list(), list():
            return len(old) == len(new) and all(map(_is_same_json, old, new))
    return isinstance(old, bool) == isinstance(new, bool) and bool(old == new)


def _is_of_the_plan(status: LedgerStatus, spec: LedgerSpec) -> bool:
    mechanism = spec.plan.noise_multiplier, spec.plan.sample_rate
    return spec.plan.noise_multiplier is None or all(
        None not in mechanism and (segment.noise_multiplier, segment.sample_rate) == mechanism
        for segment in status.segments
    )


def _is_not_ahead(status: LedgerStatus, spec: LedgerSpec) -> bool:
    checkpoint = status.checkpoint
    return checkpoint is None or (
        checkpoint.attempt <= status.attempt
        and checkpoint.step <= checkpoint.charged <= status.charged
        and checkpoint.step <= spec.plan.steps
    )


def _takes_no_proof_back(old: LedgerStatus, new: LedgerStatus) -> bool:
    before = old.volume
    return before is None or _proves(new.volume, before) or not proves_more(before, new)


def _proves(volume: VolumeRecord | None, other: VolumeRecord) -> bool:
    return (
        volume is not None
        and volume.attempt >= other.attempt
        and volume.leased >= other.leased
        and volume.charged >= other.charged
    )


_COUNTS: tuple[LedgerRule, ...] = (
    LedgerRule(
        "status-stays",
        11,
        "status",
        "!has(oldSelf.status) || has(self.status)",
        lambda old, new: has_status(new) or not has_status(old),
        STATUS_NEVER_VANISHES,
    ),
    LedgerRule(
        "reserve-covers-charged",
        17,
        "status.charged",
        f"{STATUS} || self.status.charged <= self.spec.reservedDraws",
        status_is(lambda status, spec: status.charged <= spec.reserved_draws),
        RESERVED_COVERS_CHARGED,
    ),
    LedgerRule(
        "charged-never-decreases",
        11,
        "status.charged",
        f"{STATUSES} || self.status.charged >= oldSelf.status.charged",
        status_changes(lambda old, new: new.charged >= old.charged),
        CHARGED_NEVER_DECREASES,
    ),
    LedgerRule(
        "attempt-never-decreases",
        2,
        "status.attempt",
        f"{STATUSES} || self.status.attempt >= oldSelf.status.attempt",
        status_changes(lambda old, new: new.attempt >= old.attempt),
        "status.attempt never decreases: an attempt that was superseded is over",
    ),
    LedgerRule(
        "attempt-rises-by-one",
        2,
        "status.attempt",
        f"{STATUSES} || self.status.attempt <= oldSelf.status.attempt + 1 || "
        "(has(self.status.restored) && self.status.attempt == self.status.restored)",
        status_changes(
            lambda old, new: new.attempt <= old.attempt + 1 or new.attempt == new.restored
        ),
        ATTEMPT_RISES_BY_ONE,
    ),
    never_removed(
        "outcome-is-final",
        11,
        "status.outcome",
        "self.status.outcome == oldSelf.status.outcome",
        _is_same,
        OUTCOME_IS_FINAL,
    ),
)

_CHECKPOINT: tuple[LedgerRule, ...] = (
    never_removed(
        "checkpoint-goes-forward",
        11,
        "status.checkpoint",
        "self.status.checkpoint == oldSelf.status.checkpoint || "
        "(self.status.checkpoint.attempt >= oldSelf.status.checkpoint.attempt && "
        "self.status.checkpoint.charged >= oldSelf.status.checkpoint.charged && "
        "self.status.checkpoint.step >= oldSelf.status.checkpoint.step && "
        "(self.status.checkpoint.attempt > oldSelf.status.checkpoint.attempt || "
        "self.status.checkpoint.step > oldSelf.status.checkpoint.step))",
        follows,
        "status.checkpoint can't be removed, goes forward in attempt, charge and step, and stays "
        "as it is where it does not",
    ),
    LedgerRule(
        "checkpoint-is-not-ahead",
        11,
        "status.checkpoint",
        f"{STATUS} || !has(self.status.checkpoint) || "
        "(self.status.checkpoint.attempt <= self.status.attempt && "
        "self.status.checkpoint.charged <= self.status.charged && "
        "self.status.checkpoint.step <= self.status.checkpoint.charged && "
        "self.status.checkpoint.step <= self.spec.plan.steps)",
        status_is(_is_not_ahead),
        "status.checkpoint must not be ahead of status.attempt, status.charged or spec.plan.steps, "
        "nor its step of its charge",
    ),
)

_RECORDS: tuple[LedgerRule, ...] = (
    LedgerRule(
        "segments-hold-what-is-charged",
        13,
        "status.segments",
        f"{STATUS} || self.status.charged == "
        "(has(self.status.segments) ? self.status.segments.map(s, s.draws).sum() : 0)",
        status_is(lambda status, _: status.charged == sum(s.draws for s in status.segments)),
        "status.segments must hold status.charged draws in all: epsilon is computed from them",
    ),
    LedgerRule(
        "segments-are-of-the-plan",
        13,
        "status.segments",
        f"{STATUS} || !has(self.status.segments) || !has(self.spec.plan.noiseMultiplier) "
        "|| self.status.segments.all(s, has(s.noiseMultiplier) && has(s.sampleRate) && "
        "s.noiseMultiplier == self.spec.plan.noiseMultiplier && "
        "s.sampleRate == self.spec.plan.sampleRate)",
        status_is(_is_of_the_plan),
        "status.segments must have the noiseMultiplier and the sampleRate of spec.plan: no draw "
        "was made with others",
    ),
    never_removed(
        "initial-model-stays",
        5,
        "status.initialModelDigest",
        "self.status.initialModelDigest == oldSelf.status.initialModelDigest",
        lambda old, new: new == old,
        "status.initialModelDigest is set once",
    ),
    never_removed(
        "restored-never-decreases",
        11,
        "status.restored",
        "self.status.restored >= oldSelf.status.restored",
        lambda old, new: new >= old,
        "status.restored can't be removed and never decreases",
    ),
    LedgerRule(
        "restored-is-set-to-the-attempt",
        11,
        "status.restored",
        f"{STATUSES} || !has(self.status.restored) || "
        "self.status.restored == self.status.attempt || (has(oldSelf.status.restored) && "
        "self.status.restored == oldSelf.status.restored)",
        status_changes(lambda old, new: new.restored in (None, new.attempt, old.restored)),
        "status.restored is set to the attempt at which the ledger is raised",
    ),
    LedgerRule(
        "restored-is-not-ahead",
        11,
        "status.restored",
        f"{STATUS} || !has(self.status.restored) || self.status.restored <= self.status.attempt",
        status_is(lambda status, _: (status.restored or 0) <= status.attempt),
        "status.restored must not exceed status.attempt",
    ),
    LedgerRule(
        "volume-takes-no-proof-back",
        11,
        "status.volume",
        # What `dtjob_api.ledger.proven.proves_more` says no to may go: the status has charged it.
        f"!has(oldSelf.status) || !has(oldSelf.status.volume) || {STATUS} || "
        "(has(self.status.volume) && "
        "self.status.volume.attempt >= oldSelf.status.volume.attempt && "
        "self.status.volume.leased >= oldSelf.status.volume.leased && "
        "self.status.volume.charged >= oldSelf.status.volume.charged) || "
        "(self.status.charged >= oldSelf.status.volume.charged && "
        "self.status.attempt >= oldSelf.status.volume.attempt && "
        "(oldSelf.status.volume.leased == 0 || (has(self.status.lease) && "
        "self.status.lease.attempt >= oldSelf.status.volume.leased) || "
        "(has(self.status.restored) && "
        "self.status.restored >= oldSelf.status.volume.leased)))",
        status_changes(_takes_no_proof_back),
        "status.volume takes nothing back of what a volume was found to prove, unless the status "
        "has charged it",
    ),
    never_removed(
        "drained-never-decreases",
        10,
        "status.drained",
        "self.status.drained >= oldSelf.status.drained",
        lambda old, new: new >= old,
        "status.drained can't be removed and never decreases",
    ),
    LedgerRule(
        "drained-is-not-ahead",
        10,
        "status.drained",
        f"{STATUS} || !has(self.status.drained) || self.status.drained <= self.spec.run.generation",
        status_is(lambda status, spec: (status.drained or 0) <= spec.run.generation),
        "status.drained must not exceed spec.run.generation",
    ),
)

LEDGER_RULES: tuple[LedgerRule, ...] = (
    *SPEC_RULES,
    *_COUNTS,
    *LEASE_RULES,
    *_CHECKPOINT,
    *ATTEMPT_RULES,
    *_RECORDS,
)
"""All of them, in the order of the CustomResourceDefinition."""
