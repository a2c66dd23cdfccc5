"""What a run may spend and has spent: leases, journal, checkpoints, and where to go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dtjob_api.wire.worker_config import LedgerKind, LedgerRef

if TYPE_CHECKING:
    from dtjob_trainer.ledger.backend import Ledger


def open_ledger(reference: LedgerRef) -> Ledger:
    """Open the ledger that `reference` names; nothing is read yet."""
    if reference.kind is LedgerKind.FILE:
        from dtjob_trainer.ledger.file_ledger import FileLedger

        return FileLedger(Path(str(reference.path)))
    # Its import takes 1.5 s, which a run without a cluster should not wait for.
    from dtjob_trainer.ledger.kubernetes_ledger import KubernetesLedger

    return KubernetesLedger(str(reference.namespace), str(reference.name))
