"""What a supervisor knows of its worker and its gang, for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.wire.gang import GpuReading
from dtjob_api.wire.worker_report import ReportedCheckpoint, WorkerState


@dataclass
class WorkerView:
    """What a supervisor knows of its worker and, on ordinal 0, of the whole gang."""

    ordinal: int
    job_uid: str
    state: WorkerState = WorkerState.STARTING
    stage: str = "starting"
    reason: str | None = None
    message: str | None = None
    generation: int = 0
    workers: int = 0
    attempt: int = 0
    restarts: int = 0
    total_steps: int = 0
    reserved_draws: int = 0
    charged: int = 0
    step: int = 0
    samples_per_second: float | None = None
    epsilon_spent: str | None = None
    evaluation: Mapping[str, float] = field(default_factory=dict)
    checkpoint: ReportedCheckpoint | None = None
    heartbeat: datetime | None = None
    gpus: tuple[GpuReading, ...] = ()
    rank_steps: dict[int, int] = field(default_factory=dict)

    def show(self, ledger: PrivacyLedger) -> None:
        """Take over what a ledger says that was just read."""
        self.generation, self.workers = ledger.spec.run.generation, ledger.spec.run.workers
        self.total_steps = ledger.spec.plan.steps
        self.reserved_draws = ledger.spec.reserved_draws
        if ledger.status.charged > self.charged:
            self.charged, self.epsilon_spent = ledger.status.charged, None
        self.attempt = ledger.status.attempt
        if ledger.status.checkpoint is not None:
            self.step = ledger.status.checkpoint.step
