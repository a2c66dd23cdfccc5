"""What no writer can do to a ledger: the rules at the root of PrivacyLedger (Rules 10, 11, 17).

Every rule stands at the root: a rule on a field is not evaluated when the field is removed, and
removing a field and writing it anew would pass.
"""

from __future__ import annotations

from dtjob_api.model import Json, rule
from dtjob_api.reasons import NO_FAILURE

MAX_ATTEMPTS_KEPT = 20


def _kept(path: str, condition: str, message: str) -> Json:
    """A root rule on what the stored `status.<path>` allows once it is there.

    Where the whole status is gone, the rule on status itself says so.
    """
    before = f"has(oldSelf.status) && has(oldSelf.status.{path})"
    kept = f"!has(self.status) || (has(self.status.{path}) && ({condition}))"
    return rule(f"!({before}) || {kept}", message, field=f".status.{path}")


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

ATTEMPTS_NEVER_VANISH = (
    "status.attempts keeps the newest 20: of a full list the oldest that was no failure makes room "
    "for a new attempt, or the oldest of all, and nothing else leaves it"
)

_NEW_LEASE = (
    "has(self.status) && has(self.status.lease) && !(has(oldSelf.status) && "
    "has(oldSelf.status.lease) && self.status.lease.attempt == oldSelf.status.lease.attempt && "
    "self.status.lease.fromDraw == oldSelf.status.lease.fromDraw && "
    "self.status.lease.toDraw == oldSelf.status.lease.toDraw && "
    "self.status.lease.fromStep == oldSelf.status.lease.fromStep)"
)
_FIRST_FREE_DRAW = (
    # An administrator who has raised the ledger has charged the rest of its lease whole.
    "(has(oldSelf.status) ? (has(oldSelf.status.lease) && has(oldSelf.status.lease.closedAt) && "
    "oldSelf.status.lease.toDraw == oldSelf.status.charged && !(has(oldSelf.status.restored) && "
    "oldSelf.status.lease.attempt <= oldSelf.status.restored) ? "
    "oldSelf.status.lease.closedAt : oldSelf.status.charged) : 0)"
)

_NO_FAILURE = f"has(e.end) && has(e.reason) && e.reason in {sorted(map(str, NO_FAILURE))}"
_LEAVES = (
    f"(oldSelf.status.attempts.exists(e, {_NO_FAILURE}) "
    f"? oldSelf.status.attempts.filter(e, {_NO_FAILURE})[0].attempt "
    ": oldSelf.status.attempts[0].attempt)"
)
_ATTEMPTS_STAY = (
    "oldSelf.status.attempts.all(o, self.status.attempts.exists(n, n.attempt == o.attempt) || "
    f"(oldSelf.status.attempts.size() == {MAX_ATTEMPTS_KEPT} && "
    f"self.status.attempts.size() == {MAX_ATTEMPTS_KEPT} && o.attempt == {_LEAVES}))"
)

LEDGER_RULES: tuple[Json, ...] = (
    *(
        rule(
            f"self.spec.{field} == oldSelf.spec.{field}",
            f"spec.{field} never changes: what was charged was charged under it",
            field=f".spec.{field}",
        )
        for field in ("jobUID", "jobName", "statefulSet", "plan")
    ),
    rule(
        "self.spec.reservedDraws <= oldSelf.spec.reservedDraws",
        "spec.reservedDraws never grows: the rest may have been given back",
        field=".spec.reservedDraws",
    ),
    rule(
        "self.spec.run.generation >= oldSelf.spec.run.generation",
        "spec.run.generation never decreases",
        field=".spec.run.generation",
    ),
    rule(
        "self.spec.run.workers == oldSelf.spec.run.workers || "
        "self.spec.run.generation > oldSelf.spec.run.generation",
        "spec.run.workers changes only with a new generation",
        field=".spec.run.workers",
    ),
    rule(
        "!has(oldSelf.status) || has(self.status)",
        STATUS_NEVER_VANISHES,
        field=".status",
    ),
    rule(
        "!has(self.status) || self.status.charged <= self.spec.reservedDraws",
        RESERVED_COVERS_CHARGED,
        field=".status.charged",
    ),
    rule(
        "!has(oldSelf.status) || !has(self.status) || "
        "self.status.charged >= oldSelf.status.charged",
        CHARGED_NEVER_DECREASES,
        field=".status.charged",
    ),
    rule(
        "!has(oldSelf.status) || !has(self.status) || "
        "self.status.attempt >= oldSelf.status.attempt",
        "status.attempt never decreases: an attempt that was superseded is over",
        field=".status.attempt",
    ),
    rule(
        "!has(oldSelf.status) || !has(self.status) || "
        "self.status.attempt <= oldSelf.status.attempt + 1 || "
        "(has(self.status.restored) && self.status.attempt == self.status.restored)",
        ATTEMPT_RISES_BY_ONE,
        field=".status.attempt",
    ),
    _kept("outcome", "self.status.outcome == oldSelf.status.outcome", OUTCOME_IS_FINAL),
    _kept(
        "lease",
        "self.status.lease.attempt >= oldSelf.status.lease.attempt && "
        "self.status.lease.toDraw >= oldSelf.status.lease.toDraw",
        "status.lease can't be removed, nor replaced by an older or a shorter one",
    ),
    rule(
        "!has(self.status) || !has(self.status.lease) || "
        "(self.status.lease.toDraw <= self.status.charged && "
        "self.status.lease.attempt <= self.status.attempt)",
        "status.lease must lie within status.charged and belong to no later attempt than "
        "status.attempt",
        field=".status.lease",
    ),
    rule(
        # The first status of all may be one from a backup, taken between two leases. The volume's
        # journals tell whether it is an old one.
        f"!({_NEW_LEASE}) || ((!has(oldSelf.status) || "
        "self.status.lease.attempt == self.status.attempt) && "
        f"self.status.lease.fromDraw >= {_FIRST_FREE_DRAW})",
        "a new status.lease belongs to the current attempt and begins at a draw that was "
        "never leased, or at closedAt of the one before: no draw is used twice",
        field=".status.lease",
    ),
    rule(
        f"!({_NEW_LEASE}) || !has(oldSelf.status) || !has(oldSelf.status.outcome)",
        "there is no lease after status.outcome",
        field=".status.lease",
    ),
    rule(
        f"({_NEW_LEASE}) || !has(self.status) || !has(self.status.lease) || "
        "!has(oldSelf.status) || !has(oldSelf.status.lease) || "
        "!has(oldSelf.status.lease.closedAt) || (has(self.status.lease.closedAt) && "
        "self.status.lease.closedAt == oldSelf.status.lease.closedAt)",
        "status.lease.closedAt is set once",
        field=".status.lease",
    ),
    rule(
        # Else who comes later could hand out again what its owner used.
        "!has(oldSelf.status) || !has(self.status) || !has(self.status.lease) || "
        f"!has(self.status.lease.closedAt) || (!({_NEW_LEASE}) && "
        "(has(oldSelf.status.lease.closedAt) || "
        "self.status.lease.attempt == self.status.attempt))",
        "status.lease.closedAt is set by the lease's own attempt, and after the lease was granted",
        field=".status.lease",
    ),
    _kept(
        "checkpoint",
        "self.status.checkpoint == oldSelf.status.checkpoint || "
        "(self.status.checkpoint.attempt >= oldSelf.status.checkpoint.attempt && "
        "self.status.checkpoint.charged >= oldSelf.status.checkpoint.charged && "
        "self.status.checkpoint.step >= oldSelf.status.checkpoint.step && "
        "(self.status.checkpoint.attempt > oldSelf.status.checkpoint.attempt || "
        "self.status.checkpoint.step > oldSelf.status.checkpoint.step))",
        "status.checkpoint can't be removed, goes forward in attempt, charge and step, and stays "
        "as it is where it does not",
    ),
    rule(
        "!has(self.status) || !has(self.status.checkpoint) || "
        "(self.status.checkpoint.attempt <= self.status.attempt && "
        "self.status.checkpoint.charged <= self.status.charged && "
        "self.status.checkpoint.step <= self.status.checkpoint.charged && "
        "self.status.checkpoint.step <= self.spec.plan.steps)",
        "status.checkpoint must not be ahead of status.attempt, status.charged or spec.plan.steps, "
        "nor its step of its charge",
        field=".status.checkpoint",
    ),
    rule(
        "!has(self.status) || !has(self.status.attempts) || "
        "(self.status.attempts.map(n, n.attempt).isSorted() && "
        "self.status.attempts.all(n, n.attempt <= self.status.attempt && "
        "self.status.attempts.exists_one(m, m.attempt == n.attempt)))",
        "status.attempts are in order, one entry for an attempt, none later than status.attempt",
        field=".status.attempts",
    ),
    _kept("attempts", _ATTEMPTS_STAY, ATTEMPTS_NEVER_VANISH),
    rule(
        "!has(oldSelf.status) || !has(oldSelf.status.attempts) || !has(self.status) || "
        "!has(self.status.attempts) || oldSelf.status.attempts.all(o, "
        "self.status.attempts.all(n, n.attempt != o.attempt || n == o || "
        "(!has(o.end) && has(n.end) && n.start == o.start)))",
        "an entry of status.attempts never changes once it has an end, and before it only to have "
        "one",
        field=".status.attempts",
    ),
    rule(
        "!has(oldSelf.status) || !has(self.status) || !has(self.status.attempts) || "
        "self.status.attempts.all(n, (has(oldSelf.status.attempts) && "
        "oldSelf.status.attempts.exists(o, o.attempt == n.attempt)) || "
        "(n.attempt == self.status.attempt && n.attempt > oldSelf.status.attempt))",
        "a new entry of status.attempts is of the attempt that begins with this write",
        field=".status.attempts",
    ),
    rule(
        "!has(self.status) || self.status.charged == "
        "(has(self.status.segments) ? self.status.segments.map(s, s.draws).sum() : 0)",
        "status.segments must hold status.charged draws in all: epsilon is computed from them",
        field=".status.segments",
    ),
    rule(
        "!has(self.status) || !has(self.status.segments) || !has(self.spec.plan.noiseMultiplier) "
        "|| self.status.segments.all(s, has(s.noiseMultiplier) && has(s.sampleRate) && "
        "s.noiseMultiplier == self.spec.plan.noiseMultiplier && "
        "s.sampleRate == self.spec.plan.sampleRate)",
        "status.segments must have the noiseMultiplier and the sampleRate of spec.plan: no draw "
        "was made with others",
        field=".status.segments",
    ),
    _kept(
        "initialModelDigest",
        "self.status.initialModelDigest == oldSelf.status.initialModelDigest",
        "status.initialModelDigest is set once",
    ),
    _kept(
        "restored",
        "self.status.restored >= oldSelf.status.restored",
        "status.restored can't be removed and never decreases",
    ),
    rule(
        "!has(oldSelf.status) || !has(self.status) || !has(self.status.restored) || "
        "self.status.restored == self.status.attempt || (has(oldSelf.status.restored) && "
        "self.status.restored == oldSelf.status.restored)",
        "status.restored is set to the attempt at which the ledger is raised",
        field=".status.restored",
    ),
    rule(
        "!has(self.status) || !has(self.status.restored) || "
        "self.status.restored <= self.status.attempt",
        "status.restored must not exceed status.attempt",
        field=".status.restored",
    ),
    rule(
        # What `dtjob_api.proven.proves_more` says no to may go: the status has charged it.
        "!has(oldSelf.status) || !has(oldSelf.status.volume) || !has(self.status) || "
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
        "status.volume takes nothing back of what a volume was found to prove, unless the status "
        "has charged it",
        field=".status.volume",
    ),
    _kept(
        "drained",
        "self.status.drained >= oldSelf.status.drained",
        "status.drained can't be removed and never decreases",
    ),
    rule(
        "!has(self.status) || !has(self.status.drained) || "
        "self.status.drained <= self.spec.run.generation",
        "status.drained must not exceed spec.run.generation",
        field=".status.drained",
    ),
)
"""Rules on a whole ledger and on its changes."""
