"""Where a new attempt takes up the training, or why it must not (rule 11).

The ledger is the truth; journals and checkpoints on the volume can only contradict it. All that
is here is arithmetic on what was read; nothing is written and nothing deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtjob_api.ledger.lease_rules import next_unused_draw
from dtjob_api.ledger.ledger_rules import breaches, follows
from dtjob_api.ledger.privacy_ledger import (
    UNKNOWN_IMAGE,
    CheckpointRecord,
    LedgerStatus,
    PrivacyLedger,
    Segment,
    VolumeRecord,
)
from dtjob_api.ledger.proven import found_more, newest_lease, proves_more
from dtjob_api.reasons import Reason
from dtjob_trainer.ledger.journal import AttemptJournal

_REMEDY_STATE_LOST = (
    "Draws were spent that the ledger does not know of, so no epsilon can be stated. Nothing was "
    "trained; raise the ledger to what was spent (dtjob ledger restore), and the job can go on"
)
_REMEDY_CHECKPOINT_LOST = (
    "The draws stay charged and training does not start over. Nothing was changed; put the "
    "checkpoint volume back from a copy, or start a new job, which spends anew"
)
_REMEDY_CONTRADICTORY = (
    "Nothing was changed; put the ledger back from a copy that is not older than the volume"
)

_REMEDY_FOLDER = (
    "Nothing was trained; put the ledger back from a copy that is not older than the volume, or, "
    "where that folder is not this job's, take it away or give it its name back, and the job can "
    "go on"
)


class TrainingHeld(Exception):
    """Training must not go on; `reason` is an outcome's, the message names the remedy.

    Attributes
    ----------
    proof
        What the volume proves to be spent beyond what the ledger knows, without the checkpoint to
        go on from, which takes long to read; None where nothing does.
    """

    def __init__(self, reason: Reason, message: str, proof: VolumeRecord | None = None) -> None:
        super().__init__(message)
        self.reason, self.message, self.proof = reason, message, proof


@dataclass(frozen=True)
class VolumeState:
    """What was found on the checkpoint volume.

    Attributes
    ----------
    attempts
        Of every attempt that left a folder, whatever is in it now.
    journals
        Of every attempt that left one.
    checkpoints
        (attempt, step) of every checkpoint file, recorded or not.
    """

    attempts: Sequence[int]
    journals: Sequence[AttemptJournal]
    checkpoints: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class ResumePoint:
    """Where the next lease begins.

    Attributes
    ----------
    step
        Of the recorded checkpoint; 0 without one.
    next_draw
        The first draw that no attempt was given.
    checkpoint
        The ledger's record; None before the first lease.
    """

    step: int
    next_draw: int
    checkpoint: CheckpointRecord | None


def resume_point(ledger: PrivacyLedger, volume: VolumeState) -> ResumePoint:
    """Cross-check the ledger with the volume and find the place to go on.

    Rule 10: after an orderly stop the successor uses the rest of the closed lease; after
    anything else the whole lease is spent. Rule 11: a ledger behind journal or checkpoint is
    refused.

    Parameters
    ----------
    ledger
        The newest version, with the new attempt's number already in it.

    Raises
    ------
    TrainingHeld
        `PrivacyStateLost`, `CheckpointLost` or `LedgerUnreadable` (it contradicts itself).
    """
    status = ledger.status
    # Also what was on the volume before: that it is gone too makes no draw unspent. And before all
    # else that may be wrong: no other refusal says that draws are hidden.
    hidden = found_more(status)
    for wrong in [*behind(ledger, own(ledger, volume)), *([hidden] if hidden else [])]:
        raise TrainingHeld(Reason.PRIVACY_STATE_LOST, f"{wrong}. {_REMEDY_STATE_LOST}")
    if contradictory := contradiction(ledger):
        raise TrainingHeld(Reason.LEDGER_UNREADABLE, f"{contradictory}. {_REMEDY_CONTRADICTORY}")
    for wrong in foreign(ledger, volume):
        raise checkpoint_lost(wrong)
    for wrong in ahead(ledger, volume):
        raise TrainingHeld(Reason.PRIVACY_STATE_LOST, f"{wrong}. {_REMEDY_FOLDER}")
    for wrong in volume_behind(ledger, volume):
        raise checkpoint_lost(wrong)
    return ResumePoint(
        step=status.checkpoint.step if status.checkpoint else 0,
        next_draw=next_unused_draw(ledger.status),
        checkpoint=status.checkpoint,
    )


def vouched(volume: VolumeState, checkpoint: CheckpointRecord | None) -> VolumeRecord | None:
    """What a volume proves to have been spent; None for an empty one.

    Parameters
    ----------
    checkpoint
        The newest one on the volume that is whole.
    """
    attempts = [journal.header.attempt for journal in volume.journals]
    attempts += [attempt for attempt, _ in volume.checkpoints]
    if not attempts:
        return None
    # A model that has taken s steps has used s draws at least.
    charged = [journal.charged for journal in volume.journals]
    charged += [step for _, step in volume.checkpoints]
    charged += [checkpoint.charged] if checkpoint else []
    leased = [journal.header.attempt for journal in volume.journals if journal.entries]
    return VolumeRecord(
        attempt=max(attempts),
        leased=max(leased, default=0),
        charged=max(charged),
        checkpoint=checkpoint,
    )


def most(before: VolumeRecord | None, now: VolumeRecord) -> VolumeRecord:
    """What a volume has been found to prove, before or now: files that go take no proof back."""
    if before is None:
        return now
    return VolumeRecord(
        attempt=max(before.attempt, now.attempt),
        leased=max(before.leased, now.leased),
        charged=max(before.charged, now.charged),
        checkpoint=now.checkpoint or before.checkpoint,
    )


def restored(ledger: PrivacyLedger, volume: VolumeRecord) -> LedgerStatus:
    """Rule 11: the status of a ledger that was behind, raised to what its volume vouches for.

    One more lease is charged on top, as far as the reserve allows: the last one that was granted
    need not have reached the journal. What its lease left is charged whole. The training goes on
    from the newest checkpoint of the two.

    Raises
    ------
    ValueError
        The ledger is not behind this volume.
    TrainingHeld
        `CheckpointLost`: neither names a checkpoint to go on from.
    """
    plan, status = ledger.spec.plan, ledger.status
    if not proves_more(volume, status):
        raise ValueError(
            f"the ledger has charged {status.charged} draws in attempt {status.attempt}, the "
            f"volume vouches for {volume.charged} in attempt {volume.attempt}"
        )
    checkpoint = status.checkpoint
    proven = volume.checkpoint
    if checkpoint is None or (proven is not None and follows(checkpoint, proven)):
        checkpoint = proven
    if checkpoint is None:
        raise checkpoint_lost("there is no whole checkpoint on the volume")
    known = max(status.charged, volume.charged)
    charged = min(known + plan.lease_steps, ledger.spec.reserved_draws)
    *earlier, last = status.segments or [
        Segment(
            noise_multiplier=plan.noise_multiplier,
            sample_rate=plan.sample_rate,
            draws=0,
            image=UNKNOWN_IMAGE,
        )
    ]
    last = last.model_copy(update={"draws": last.draws + charged - status.charged})
    attempt = max(status.attempt, volume.attempt)
    raised = status.model_copy(
        update={
            "attempt": attempt,
            "restored": attempt,
            "charged": charged,
            "segments": [*earlier, last],
            "checkpoint": checkpoint,
        }
    )
    # Beyond the reserve nothing is charged, and yet it was spent.
    return raised.model_copy(update={"volume": volume if proves_more(volume, raised) else None})


def checkpoint_lost(why: str) -> TrainingHeld:
    """The refusal for a recorded checkpoint or a journal that can't be used."""
    return TrainingHeld(Reason.CHECKPOINT_LOST, f"{why}. {_REMEDY_CHECKPOINT_LOST}")


def contradiction(ledger: PrivacyLedger) -> str | None:
    """How one version of a ledger contradicts itself, in words; None where it is sound."""
    faults, status = breaches(None, ledger), ledger.status
    if status.charged > 0 and status.checkpoint is None:
        faults.append(f"charged is {status.charged} without a checkpoint")
    if not faults:
        return None
    return f"the ledger of job {ledger.spec.job_name} contradicts itself: {faults[0]}"


def foreign(ledger: PrivacyLedger, volume: VolumeState) -> list[str]:
    """What on the volume is another job's, in words."""
    return [
        f"the checkpoint volume is another job's: {journal.path} belongs to the job with UID "
        f"{journal.header.job_uid}, this job's is {ledger.spec.job_uid}"
        for journal in volume.journals
        if journal.header.job_uid != ledger.spec.job_uid
    ]


def own(ledger: PrivacyLedger, volume: VolumeState) -> VolumeState:
    """What on the volume is not `foreign`: it proves its draws, whatever lies beside it."""
    uid = ledger.spec.job_uid
    others = {j.header.attempt for j in volume.journals if j.header.job_uid != uid}
    return VolumeState(
        [attempt for attempt in volume.attempts if attempt not in others],
        [journal for journal in volume.journals if journal.header.attempt not in others],
        [file for file in volume.checkpoints if file[0] not in others],
    )


def behind(ledger: PrivacyLedger, volume: VolumeState) -> list[str]:
    """Which draws or attempts the volume proves and the ledger does not record (rule 11).

    First what proves most: who reads one of them alone must not take too few draws for spent.

    Parameters
    ----------
    volume
        Nothing on it is `foreign`.
    """
    status = ledger.status
    findings: list[tuple[int, int, str]] = []
    for journal in volume.journals:
        attempt, wrong = journal.header.attempt, []
        if journal.charged > status.charged:
            wrong.append(
                f"holds a lease up to draw {journal.charged}, the ledger has charged "
                f"{status.charged}"
            )
        if attempt > status.attempt:
            wrong.append(f"is of attempt {attempt}, the ledger is at attempt {status.attempt}")
        # The rest of a closed lease is used without a charge: only the newest lessee shows it.
        if journal.entries and attempt > newest_lease(status):
            wrong.append(
                f"holds a lease of attempt {attempt}, the newest that the ledger knows is of "
                f"attempt {newest_lease(status)}"
            )
        findings += [
            (journal.charged, attempt, f"the ledger is behind the journal: {journal.path} {words}")
            for words in wrong
        ]
    for attempt, step in volume.checkpoints:
        if attempt > status.attempt or step > status.charged:
            words = (
                f"the ledger is behind a checkpoint: step {step} of attempt {attempt} is on the "
                f"volume, the ledger has charged {status.charged} draws in attempt "
                f"{status.attempt}"
            )
            findings.append((step, attempt, words))
    findings.sort(key=lambda it: it[:2], reverse=True)
    return [words for _, _, words in findings]


def ahead(ledger: PrivacyLedger, volume: VolumeState) -> list[str]:
    """Which attempts left an empty folder and are not in the ledger.

    Whoever makes a folder has read its number in the ledger, where that was durable: no crash
    leaves a folder that the ledger does not know. It does not show what was leased.
    """
    return [
        f"the ledger is behind an attempt: the folder of attempt {attempt} is on the volume, the "
        f"ledger is at attempt {ledger.status.attempt}"
        for attempt in volume.attempts
        if attempt > ledger.status.attempt
    ]


def volume_behind(ledger: PrivacyLedger, volume: VolumeState) -> list[str]:
    """What the ledger records and the volume should hold but does not, in words.

    Without it nothing shows that the ledger is the newest: it may be an older copy, and the
    journal that would show this be out of sight.
    """
    lease = ledger.status.lease
    if lease is None:
        return []
    journals = {journal.header.attempt: journal for journal in volume.journals}
    journal = journals.get(lease.attempt)
    if journal is None:
        return [
            f"the ledger has charged {ledger.status.charged} draws, but the journal of attempt "
            f"{lease.attempt}, which leased them, is not on the checkpoint volume"
        ]
    if journal.charged < lease.from_draw:
        return [
            f"the checkpoint volume is older than the ledger: {journal.path} ends at draw "
            f"{journal.charged}, the ledger's lease begins at {lease.from_draw}"
        ]
    return []
