"""The digits job as runs that the tests make up have it: manifest, UID, plan and ledger."""

from __future__ import annotations

from pathlib import Path

from dtjob_api.derive import ledger_spec
from dtjob_api.ledger.privacy_ledger import (
    Lease,
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
)
from dtjob_api.model import ObjectMeta
from dtjob_api.reasons import Reason
from dtjob_cli import manifests
from dtjob_cli.runs import run_directory
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.journal import Entry, Header, Journal
from tests.support.builders import START, UID, checkpoint, privacy_plan, spent
from tests.support.checkout import DIGITS

PLAN = privacy_plan()
OUTCOME = Outcome(
    state=OutcomeState.SUCCEEDED,
    reason=Reason.COMPLETED,
    message="",
    time=START,
)


def stored_run(folder: Path, status: LedgerStatus, uid: str = UID) -> run_directory.RunDirectory:
    """A run with this ledger; its volume is empty."""
    job = manifests.job(manifests.read(DIGITS), uid)
    run = run_directory.create(folder, f"digits-{uid[:8]}", DIGITS)
    ledger = PrivacyLedger(
        metadata=ObjectMeta(name=run.path.name), spec=ledger_spec(job, PLAN), status=status
    )
    FileLedger(run.ledger).create(ledger)
    return run


def drawn(charged: int) -> LedgerStatus:
    """Charged by its first attempt."""
    if not charged:
        return LedgerStatus(attempt=1)
    lease = Lease(attempt=1, from_draw=0, to_draw=charged, from_step=0)
    return LedgerStatus(attempt=1, lease=lease, checkpoint=checkpoint(0, 0), **spent(charged, PLAN))


def leased(
    run: run_directory.RunDirectory, to_draw: int, attempt: int = 1, uid: str = UID
) -> Journal:
    """The journal of an attempt that leased all draws up to one."""
    journal = Journal(run.state, Header(job_uid=uid, attempt=attempt, charged=0))
    journal.create()
    journal.append(Entry(from_draw=0, to_draw=to_draw, from_step=0))
    return journal
