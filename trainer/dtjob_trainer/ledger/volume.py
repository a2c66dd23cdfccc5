"""The checkpoint volume as it is found, held against the ledger (rule 11)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dtjob_api.ledger.privacy_ledger import (
    CheckpointRecord,
    LedgerSpec,
    LedgerStatus,
    PrivacyLedger,
    VolumeRecord,
)
from dtjob_api.ledger.proven import newest_lease, proves_more
from dtjob_api.reasons import Reason
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.ledger import durable, recovery
from dtjob_trainer.ledger.backend import Ledger, LedgerRejected, LedgerUnreadable, update
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.checkpoint_format import Format
from dtjob_trainer.ledger.journal import (
    JournalUnreadable,
    NoSuchNumber,
    attempts_on,
    examined,
    read_all,
)
from dtjob_trainer.ledger.recovery import ResumePoint, TrainingHeld, VolumeState

_UNREAD = (
    "Its attempt may have leased draws that the ledger does not know of, so no epsilon can be "
    "stated, and all reserved draws count as spent, also if it is put back now. Nothing was "
    "trained; put the ledger back from a copy that is not older than the volume, and the job can "
    "go on, or raise it (dtjob ledger restore), which charges them all"
)
_STRANGE = "Nothing was changed; take it away, or give it its name back, and the job can go on"


def store(spec: LedgerSpec, config: WorkerConfig, format: Format | None = None) -> CheckpointStore:
    """The checkpoints of a worker's job."""
    return CheckpointStore(Path(config.state_dir), spec.job_uid, spec.plan, config.keep, format)


def read_volume(checkpoints: CheckpointStore) -> VolumeState:
    """What lies on the checkpoint volume of `checkpoints`, complete or not.

    Raises
    ------
    JournalUnreadable, durable.VolumeUnusable
    """
    with durable.refusals_named(checkpoints.state_dir):
        files = [(file.attempt, file.step) for file in checkpoints.files()]
        journals = read_all(checkpoints.state_dir)
        return VolumeState(attempts_on(checkpoints.state_dir), journals, files)


def resume_point(ledger: PrivacyLedger, checkpoints: CheckpointStore) -> ResumePoint:
    """Where the volume and the ledger say that a new attempt goes on.

    Raises
    ------
    TrainingHeld
        As `recovery.resume_point`, with what the volume proves where the ledger lacks it; or a
        journal can't be read.
    durable.VolumeUnusable
    """
    try:
        state = read_volume(checkpoints)
    except JournalUnreadable as error:
        raise unread(ledger, checkpoints, error) from error
    try:
        return recovery.resume_point(ledger, state)
    except TrainingHeld as refusal:
        if refusal.reason is Reason.PRIVACY_STATE_LOST:
            proof = recovery.vouched(recovery.own(ledger, state), None)
            if proof is not None and proves_more(proof, ledger.status):
                refusal.proof = proof
        raise


def unread(
    ledger: PrivacyLedger, checkpoints: CheckpointStore, error: JournalUnreadable
) -> TrainingHeld:
    """The refusal for a volume on which `error` keeps something from being read.

    A journal of an attempt of which the ledger knows no lease may hold any: it counts as all that
    is reserved, also when the file is gone later. What attempts before the newest that leased had
    is charged. Of that one's own, an older copy of the ledger may lack some: nothing shows that, as
    where the whole volume is lost.
    """
    journals, unreadable = examined(checkpoints.state_dir)
    read = VolumeState([], journals, [])
    mine = recovery.own(ledger, read)
    foreign = recovery.foreign(ledger, read)
    newest = max(unreadable, key=lambda one: one.attempt or 0, default=error)
    attempt = newest.attempt or 0
    if not foreign and attempt > newest_lease(ledger.status):
        unknown = VolumeRecord(attempt=attempt, leased=attempt, charged=ledger.spec.reserved_draws)
        proof = recovery.most(recovery.vouched(mine, None), unknown)
        return TrainingHeld(Reason.PRIVACY_STATE_LOST, f"{newest}. {_UNREAD}", proof)
    for wrong in recovery.behind(ledger, mine):
        known = recovery.vouched(mine, None)
        return TrainingHeld(Reason.PRIVACY_STATE_LOST, f"{wrong}; besides, {error}", known)
    for wrong in foreign:
        return recovery.checkpoint_lost(wrong)
    if isinstance(error, NoSuchNumber):
        return TrainingHeld(Reason.STORAGE_UNUSABLE, f"{error}. {_STRANGE}")
    return recovery.checkpoint_lost(str(error))


def record_proof(
    ledger: Ledger, attempt: int, refusal: TrainingHeld, checkpoints: CheckpointStore
) -> None:
    """Record in the ledger what the volume proves: it counts also when the files are gone later.

    Who restores a ledger in a cluster can't see the volume, so the newest checkpoint is read and
    recorded too. Where the ledger takes no write now, the refusal stands all the same, and the next
    attempt finds the same.

    Raises
    ------
    Superseded
    """
    if (proof := refusal.proof) is None:
        return
    if (whole := _newest_whole(checkpoints)) is not None:
        saved = VolumeRecord(attempt=whole.attempt, charged=whole.charged, checkpoint=whole)
        proof = recovery.most(proof, saved)

    def change(newest: PrivacyLedger) -> LedgerStatus | None:
        proven = recovery.most(newest.status.volume, proof)
        if newest.status.volume == proven:
            return None
        return newest.status.model_copy(update={"volume": proven})

    with contextlib.suppress(LedgerRejected, LedgerUnreadable, durable.VolumeFull):
        update(ledger, attempt, change)


def _newest_whole(checkpoints: CheckpointStore) -> CheckpointRecord | None:
    """None also where it can't be determined: no fewer draws are proven for it."""
    try:
        return checkpoints.newest_whole()
    except (JournalUnreadable, durable.VolumeUnusable):
        return None
