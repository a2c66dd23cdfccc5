"""The rules that every write of a ledger keeps, as a pure function.

In a cluster the API server holds them (CEL at the root of the PrivacyLedger, beside the models in
`dtjob_api.ledger`); a ledger in a folder has nobody but its writers, who evaluate them here. A
test holds the two equal on a list of attacks.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtjob_api.ledger import (
    AttemptRecord,
    CheckpointRecord,
    Lease,
    LedgerSpec,
    LedgerStatus,
    PrivacyLedger,
    VolumeRecord,
)
from dtjob_api.ledger_rules import MAX_ATTEMPTS_KEPT
from dtjob_api.privacy import PrivacyMode
from dtjob_api.proven import proves_more
from dtjob_api.reasons import NO_FAILURE
from dtjob_trainer.lease import next_unused_draw


def check_transition(old: PrivacyLedger | None, new: PrivacyLedger) -> list[str]:
    """What is wrong with `new` as the version after `old`, in words; empty for a sound write.

    Rules 10, 11 and 17: what is charged is never given back, no draw is leased twice, an
    outcome is final, the plan never changes.

    Parameters
    ----------
    old
        The stored version; None where there is none yet.
    """
    found = _state(new.spec, new.status)
    if old is not None:
        found += _spec_transition(old.spec, new.spec)
        found += _status_transition(old.status, new.status)
        found += _lease_transition(old.status, new.status)
        found += _attempts_transition(old.status, new.status)
    return found


def leaves(attempts: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """The record that makes room for a new attempt's; None while there is room.

    The oldest that was no failure, so that stops and resizes never hide how often a job failed
    within the hour; the oldest of all where each was one.
    """
    if len(attempts) < MAX_ATTEMPTS_KEPT:
        return None
    orderly = (r for r in attempts if r.end is not None and r.reason in NO_FAILURE)
    return next(orderly, attempts[0])


def _state(spec: LedgerSpec, status: LedgerStatus) -> list[str]:
    plan, lease, checkpoint = spec.plan, status.lease, status.checkpoint
    found = []
    if spec.reserved_draws > plan.steps + plan.replay_reserve_steps:
        found.append("spec.reservedDraws exceeds plan.steps + plan.replayReserveSteps")
    if plan.mode is not PrivacyMode.DISABLED and None in (
        plan.noise_multiplier,
        plan.sample_rate,
        plan.delta,
        plan.max_grad_norm,
    ):
        found.append("spec.plan lacks a privacy parameter that mode DPSGD needs")
    if status.charged > spec.reserved_draws:
        found.append(
            f"status.charged {status.charged} exceeds spec.reservedDraws {spec.reserved_draws}"
        )
    if (draws := sum(segment.draws for segment in status.segments)) != status.charged:
        found.append(f"status.segments hold {draws} draws, status.charged is {status.charged}")
    mechanism = (plan.noise_multiplier, plan.sample_rate)
    if plan.noise_multiplier is not None and any(
        (segment.noise_multiplier, segment.sample_rate) != mechanism for segment in status.segments
    ):
        found.append("status.segments have other noise or another sample rate than spec.plan")
    if (status.restored or 0) > status.attempt:
        found.append("status.restored exceeds status.attempt")
    if lease is not None:
        found += _lease_state(lease, status)
    if checkpoint is not None and not (
        checkpoint.attempt <= status.attempt
        and checkpoint.step <= checkpoint.charged <= status.charged
        and checkpoint.step <= plan.steps
    ):
        found.append(
            "status.checkpoint is ahead of status.attempt, status.charged, plan.steps or its own "
            "charge"
        )
    numbers = [record.attempt for record in status.attempts]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] > status.attempt):
        found.append("status.attempts are not in order, not unique or later than status.attempt")
    if status.drained is not None and status.drained > spec.run.generation:
        found.append("status.drained exceeds spec.run.generation")
    return found


def _lease_state(lease: Lease, status: LedgerStatus) -> list[str]:
    found = []
    if lease.from_draw > lease.to_draw:
        found.append("status.lease.toDraw is less than fromDraw")
    if lease.closed_at is not None and not lease.from_draw <= lease.closed_at <= lease.to_draw:
        found.append("status.lease.closedAt lies outside the lease")
    if lease.to_draw > status.charged or lease.attempt > status.attempt:
        found.append("status.lease is ahead of status.charged or status.attempt")
    return found


def _spec_transition(old: LedgerSpec, new: LedgerSpec) -> list[str]:
    found = [
        f"spec.{name} never changes"
        for name in ("job_uid", "job_name", "stateful_set", "plan")
        if getattr(new, name) != getattr(old, name)
    ]
    if new.reserved_draws > old.reserved_draws:
        found.append("spec.reservedDraws never grows")
    if new.run.generation < old.run.generation:
        found.append("spec.run.generation never decreases")
    if new.run.workers != old.run.workers and new.run.generation <= old.run.generation:
        found.append("spec.run.workers changes only with a new generation")
    return found


def _status_transition(old: LedgerStatus, new: LedgerStatus) -> list[str]:
    found = []
    if new.charged < old.charged:
        found.append(f"status.charged never decreases ({old.charged} to {new.charged})")
    if new.attempt < old.attempt:
        found.append(f"status.attempt never decreases ({old.attempt} to {new.attempt})")
    if new.attempt > old.attempt + 1 and new.attempt != new.restored:
        found.append(f"status.attempt rises by one ({old.attempt} to {new.attempt})")
    if old.outcome is not None and new.outcome != old.outcome:
        found.append("status.outcome is set once")
    if old.initial_model_digest not in (None, new.initial_model_digest):
        found.append("status.initialModelDigest is set once")
    if old.drained is not None and (new.drained is None or new.drained < old.drained):
        found.append("status.drained never decreases")
    if old.restored is not None and (new.restored is None or new.restored < old.restored):
        found.append("status.restored never decreases")
    if new.restored not in (None, old.restored, new.attempt):
        found.append("status.restored is set to the attempt at which the ledger is raised")
    if old.checkpoint is not None and not follows(old.checkpoint, new.checkpoint):
        found.append("status.checkpoint goes forward in attempt, charge and step, or stays")
    if old.volume is not None and proves_more(old.volume, new) and _loses(old.volume, new.volume):
        found.append("status.volume takes nothing back that the status has not charged")
    return found


def _loses(old: VolumeRecord, new: VolumeRecord | None) -> bool:
    return new is None or not (
        new.attempt >= old.attempt and new.leased >= old.leased and new.charged >= old.charged
    )


def _lease_transition(old: LedgerStatus, new: LedgerStatus) -> list[str]:
    before, after = old.lease, new.lease
    if after is None:
        return [] if before is None else ["status.lease can't be removed"]
    found = []
    if before is not None and (after.attempt < before.attempt or after.to_draw < before.to_draw):
        found.append("status.lease is never replaced by an older or a shorter one")
    if before is not None and _identity(after) == _identity(before):
        if before.closed_at is not None and after.closed_at != before.closed_at:
            found.append("status.lease.closedAt is set once")
        if before.closed_at is None is not after.closed_at and after.attempt != new.attempt:
            found.append("status.lease.closedAt is set by the lease's own attempt")
        return found
    if after.closed_at is not None:
        found.append("status.lease.closedAt is set after the lease was granted")
    first_free = next_unused_draw(old)
    if after.attempt != new.attempt or after.from_draw < first_free:
        found.append(
            f"a new status.lease belongs to the current attempt and begins at draw {first_free} "
            f"or later: no draw is used twice"
        )
    if old.outcome is not None:
        found.append("there is no lease after status.outcome")
    return found


def follows(old: CheckpointRecord, new: CheckpointRecord | None) -> bool:
    """Whether a record of a checkpoint may take the place of another."""
    if new is None or new == old:
        return new is not None
    return (
        new.attempt >= old.attempt
        and new.charged >= old.charged
        and new.step >= old.step
        and (new.attempt > old.attempt or new.step > old.step)
    )


def _attempts_transition(old: LedgerStatus, new: LedgerStatus) -> list[str]:
    before = {record.attempt: record for record in old.attempts}
    after = {record.attempt: record for record in new.attempts}
    found = []
    leaving = leaves(old.attempts) if len(new.attempts) == MAX_ATTEMPTS_KEPT else None
    if before.keys() - after.keys() - ({leaving.attempt} if leaving else set()):
        found.append("status.attempts loses what it has to keep")
    if not all(_is_that_or_its_end(record, after.get(n, record)) for n, record in before.items()):
        found.append("an entry of status.attempts never changes once it has an end")
    if any(n != new.attempt or n <= old.attempt for n in after.keys() - before.keys()):
        found.append("a new entry of status.attempts is of the attempt that begins")
    return found


def _is_that_or_its_end(old: AttemptRecord, new: AttemptRecord) -> bool:
    ended = old.end is None and new.end is not None and new.start == old.start
    return new == old or ended


def _identity(lease: Lease) -> tuple[int, int, int, int]:
    return lease.attempt, lease.from_draw, lease.to_draw, lease.from_step
