"""Draws that the checkpoint volume proves and the ledger does not record (Rule 11).

A ledger that was put back without its status says that nothing is charged. An outcome written into
it then would be final, though a backup or `dtjob ledger restore` could still save the run. So
the coordinator reads the volume before it writes one.
"""

from __future__ import annotations

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.ledger import volume
from dtjob_trainer.ledger.durable import VolumeUnusable
from dtjob_trainer.ledger.journal import JournalUnreadable
from dtjob_trainer.ledger.recovery import TrainingHeld


def unrecorded_draws(ledger: PrivacyLedger, config: WorkerConfig) -> TrainingHeld | None:
    """Why no outcome may be written into a ledger; None where nothing speaks against it."""
    try:
        volume.resume_point(ledger, volume.store(ledger.spec, config))
    except TrainingHeld as refusal:
        if refusal.reason is Reason.PRIVACY_STATE_LOST:
            return refusal
        if isinstance(refusal.__cause__, JournalUnreadable):
            return TrainingHeld(
                Reason.PRIVACY_STATE_LOST,
                f"nobody knows what was spent: {refusal.__cause__}. Nothing was written; put the "
                "volume right, and the job can go on",
            )
        # What else is wrong between the two, the ledger knows all draws of.
    except VolumeUnusable as error:
        return TrainingHeld(Reason.STORAGE_UNUSABLE, str(error.strerror))
    return None
