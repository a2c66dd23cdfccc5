"""The digits job as runs that the tests make up have it: manifest, UID, plan and ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dtjob_accounting import draws
from dtjob_api.derive import ledger_spec
from dtjob_api.ledger import (
    CheckpointRecord,
    Lease,
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
    PrivacyPlan,
    Segment,
)
from dtjob_api.model import ObjectMeta
from dtjob_api.reasons import Reason
from dtjob_cli import manifests, runs
from dtjob_trainer.journal import Entry, Header, Journal
from dtjob_trainer.ledger_file import FileLedger
from tests.support.checkout import DIGITS

UID = "0a1b2c3d-0000-4000-8000-000000000000"
PLAN = PrivacyPlan(
    mode="DPSGD",
    noise_multiplier=2.2027,
    sample_rate=draws.sample_rate(256, 1437),
    epsilon=8.0,
    epsilon_guaranteed=7.9997,
    delta=1e-5,
    max_grad_norm=1.0,
    batch_size=256,
    dataset_size=1437,
    steps=336,
    replay_reserve_steps=30,
    lease_steps=10,
    accountant_version="dp-accounting 0.6.0",
)

OUTCOME = Outcome(
    state=OutcomeState.SUCCEEDED,
    reason=Reason.COMPLETED,
    message="",
    time="2026-01-01T00:00:00Z",
)


def made(folder: Path, status: LedgerStatus, uid: str = UID) -> runs.RunDirectory:
    """A run with this ledger; its volume is empty."""
    job = manifests.job(manifests.read(DIGITS), uid)
    run = runs.create(folder, f"digits-{uid[:8]}", DIGITS)
    ledger = PrivacyLedger(
        metadata=ObjectMeta(name=run.path.name), spec=ledger_spec(job, PLAN), status=status
    )
    FileLedger(run.ledger).create(ledger)
    return run


def drawn(charged: int) -> LedgerStatus:
    """Charged by its first attempt."""
    segment = Segment(
        noise_multiplier=PLAN.noise_multiplier,
        sample_rate=PLAN.sample_rate,
        draws=charged,
        image="trainer",
    )
    if not charged:
        return LedgerStatus(attempt=1)
    lease = Lease(attempt=1, from_draw=0, to_draw=charged, from_step=0)
    checkpoint = CheckpointRecord(
        step=0,
        charged=0,
        attempt=1,
        path="attempt-1/step-0.pt",
        sha256="0" * 64,
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return LedgerStatus(
        charged=charged, attempt=1, lease=lease, segments=[segment], checkpoint=checkpoint
    )


def leased(run: runs.RunDirectory, to_draw: int, attempt: int = 1, uid: str = UID) -> Journal:
    """The journal of an attempt that leased all draws up to one."""
    journal = Journal(run.state, Header(job_uid=uid, attempt=attempt, charged=0))
    journal.create()
    journal.append(Entry(from_draw=0, to_draw=to_draw, from_step=0))
    return journal
