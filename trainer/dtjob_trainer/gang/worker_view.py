"""What a supervisor knows of its worker and its gang, for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.wire.gang import GpuReading
from dtjob_api.wire.worker_report import WorkerReport, WorkerState


@dataclass(frozen=True)
class WorkerView:
    """What a supervisor knows of its worker and, on the coordinator, of the whole gang.

    Attributes
    ----------
    report
        Without what is computed when somebody asks for it.
    rank_steps
        Steps that each rank of this worker has finished.
    """

    position: int
    report: WorkerReport
    gpus: tuple[GpuReading, ...] = ()
    rank_steps: Mapping[int, int] = field(default_factory=dict)


class CurrentView:
    """Holds the newest view, which each change replaces."""

    def __init__(self, position: int, job_uid: str, stage: str = "starting") -> None:
        report = WorkerReport(job_uid=job_uid, attempt=0, state=WorkerState.STARTING, stage=stage)
        self.view = WorkerView(position, report)

    @property
    def report(self) -> WorkerReport:
        """The newest view's."""
        return self.view.report

    def update(self, **fields: Any) -> None:
        """Replace these fields of the report."""
        self.view = replace(self.view, report=replace(self.report, **fields))

    def show(self, ledger: PrivacyLedger) -> None:
        """Take over what a ledger says that was just read."""
        spec, status = ledger.spec, ledger.status
        self.update(
            generation=spec.run.generation,
            workers=spec.run.workers,
            attempt=status.attempt,
            total_steps=spec.plan.steps,
            reserved_draws=spec.reserved_draws,
        )
        if status.charged > self.report.charged:
            self.update(charged=status.charged, epsilon_spent=None)
        if status.checkpoint is not None:
            self.update(step=status.checkpoint.step)
