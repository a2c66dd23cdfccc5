"""What a ledger proves of the draws that were spent, and whether it may lack some (Rules 11, 13).

Who has only the ledger, as the operator and a report of a job have, knows no more than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dtjob_api.ledger.privacy_ledger import LedgerStatus, VolumeRecord
from dtjob_api.reasons import Reason


def proven_draws(status: Mapping[str, Any]) -> int:
    """Draws that were spent at least, of a stored status.

    The greater of what is charged and what a worker has found on the checkpoint volume.
    """
    volume: Mapping[str, int] = status.get("volume") or {}
    charged: int = status.get("charged", 0)
    return max(charged, volume.get("charged", 0))


def may_lack_draws(status: LedgerStatus) -> str | None:
    """Why it is not known what was spent, in words; None where the ledger shows it.

    A worker that finds the ledger behind its volume records it in `volume`, and in how its attempt
    ended. It may have failed to write the first, or to read all of the volume. Its
    refusal stands until the ledger is raised, or an attempt after it has found the two to agree:
    none leases before, and none writes an outcome.
    """
    if (more := found_more(status)) is not None:
        return more
    if status.outcome is not None:
        return None
    lost = [a.attempt for a in status.attempts if a.reason == Reason.PRIVACY_STATE_LOST]
    leased, raised = status.lease.attempt if status.lease else 0, status.restored or 0
    if lost and lost[-1] >= leased and lost[-1] > raised:
        return (
            f"the ledger may lack draws that were spent: attempt {lost[-1]} was refused as "
            f"{Reason.PRIVACY_STATE_LOST}, and since then none has leased draws and nobody has "
            "raised the ledger"
        )
    return None


def found_more(status: LedgerStatus) -> str | None:
    """What a worker has found on the volume beyond what the ledger has charged since, in words."""
    volume = status.volume
    if volume is None or not proves_more(volume, status):
        return None
    return (
        f"the ledger is behind its checkpoint volume: a worker found {volume.charged} draws "
        f"charged in attempt {volume.attempt} there, the ledger has charged {status.charged} in "
        f"attempt {status.attempt}"
    )


def proves_more(volume: VolumeRecord, status: LedgerStatus) -> bool:
    """Whether draws or attempts were spent that the status does not know of."""
    return (
        volume.charged > status.charged
        or volume.attempt > status.attempt
        or volume.leased > newest_lease(status)
    )


def newest_lease(status: LedgerStatus) -> int:
    """The newest attempt whose leases the ledger knows, or was raised to."""
    return max(status.lease.attempt if status.lease else 0, status.restored or 0)
