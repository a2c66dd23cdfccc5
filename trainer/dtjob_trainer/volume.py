"""The checkpoint volume as it is found, held against the ledger (rule 11)."""

from __future__ import annotations

import contextlib

from dtjob_api.ledger import CheckpointRecord, LedgerStatus, PrivacyLedger, VolumeRecord
from dtjob_api.proven import newest_lease, proves_more
from dtjob_api.reasons import Reason
from dtjob_trainer import durable, recovery
from dtjob_trainer.checkpoint import CheckpointStore
from dtjob_trainer.journal import JournalUnreadable, NoSuchNumber, attempts_on, examined, read_all
from dtjob_trainer.ledger import Ledger, LedgerRejected, LedgerUnreadable, update
from dtjob_trainer.recovery import Refusal, ResumePoint, VolumeState

_UNREAD = (
    "Its attempt may have leased draws that the ledger does not know of, so no epsilon can be "
    "stated, and all reserved draws count as spent, also if it is put back now. Nothing was "
    "trained; put the ledger back from a copy that is not older than the volume, and the job can "
    "go on, or raise it (dtjob ledger restore), which charges them all"
)
_STRANGE = "Nothing was changed; take it away, or give it its name back, and the job can go on"


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
    Refusal
        As `recovery.resume_point`, with what the volume proves where the ledger lacks it; or a
        journal can't be read.
    durable.VolumeUnusable
    """
    try:
        found = read_volume(checkpoints)
    except JournalUnreadable as error:
        raise unread(ledger, checkpoints, error) from error
    try:
        return recovery.resume_point(ledger, found)
    except Refusal as refusal:
        if refusal.reason is Reason.PRIVACY_STATE_LOST:
            mine = recovery.own(ledger, found)
            proof = recovery.vouched(mine, _newest_whole(checkpoints))
            if proof is not None and proves_more(proof, ledger.status):
                refusal.proof = proof
        raise


def unread(
    ledger: PrivacyLedger, checkpoints: CheckpointStore, error: JournalUnreadable
) -> Refusal:
    """The refusal for a volume on which `error` keeps something from being read.

    A journal of an attempt of which the ledger knows no lease may hold any: it counts as all that
    is reserved, also when the file is gone later. What attempts before the newest that leased had
    is charged. Of that one's own, an older copy of the ledger may lack some: as where the whole
    volume is lost, nothing tells.
    """
    journals, unreadable = examined(checkpoints.state_dir)
    read = VolumeState([], journals, [])
    mine = recovery.own(ledger, read)
    foreign = recovery.foreign(ledger, read)
    newest = max(unreadable, key=lambda one: one.attempt or 0, default=error)
    attempt = newest.attempt or 0
    if not foreign and attempt > newest_lease(ledger.status):
        proof = VolumeRecord(
            attempt=attempt,
            leased=attempt,
            charged=ledger.spec.reserved_draws,
            checkpoint=_newest_whole(checkpoints),
        )
        proof = recovery.most(proof, recovery.vouched(mine, None)) or proof
        return Refusal(Reason.PRIVACY_STATE_LOST, f"{newest}. {_UNREAD}", proof)
    for wrong in recovery.behind(ledger, mine):
        proven = recovery.vouched(mine, _newest_whole(checkpoints))
        return Refusal(Reason.PRIVACY_STATE_LOST, f"{wrong}; besides, {error}", proven)
    for wrong in foreign:
        return recovery.checkpoint_lost(wrong)
    if isinstance(error, NoSuchNumber):
        return Refusal(Reason.STORAGE_UNUSABLE, f"{error}. {_STRANGE}")
    return recovery.checkpoint_lost(str(error))


def tell(ledger: Ledger, attempt: int, proof: VolumeRecord) -> None:
    """Say in the ledger what the volume proves: it counts also when the files are gone later.

    Who restores a ledger in a cluster can't see the volume. Where the ledger takes no write now,
    the refusal stands all the same, and the next attempt finds the same.

    Raises
    ------
    Superseded
    """

    def change(newest: PrivacyLedger) -> LedgerStatus | None:
        told = recovery.most(newest.status.volume, proof)
        if newest.status.volume == told:
            return None
        return newest.status.model_copy(update={"volume": told})

    with contextlib.suppress(LedgerRejected, LedgerUnreadable, durable.VolumeFull):
        update(ledger, attempt, change)


def _newest_whole(checkpoints: CheckpointStore) -> CheckpointRecord | None:
    """None also where it can't be told: the draws that are proven are no fewer for it."""
    try:
        return checkpoints.newest_whole()
    except (JournalUnreadable, durable.VolumeUnusable):
        return None
