"""What a worker shows of itself at `/report`; the coordinator speaks for the whole gang.

It comes out of a pod that runs users' code: a reader takes each field by itself, and what is
malformed is absent. Everything in it is independent of the private data (Rule 19).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from dtjob_api.job.status import GpuStatus
from dtjob_api.ledger import ending
from dtjob_api.model import Json, timestamp

_MAX_TEXT = 1024
_EPSILON = re.compile(r"[0-9]{1,28}(\.[0-9]{1,28})?")
# Samples per second: what is slower or faster is no training.
_SLOWEST, _FASTEST = 1e-6, 1e15
_GPU_FIELDS = frozenset(f.alias or name for name, f in GpuStatus.model_fields.items())


class WorkerState(StrEnum):
    """What a worker is at; on the coordinator the gang."""

    STARTING = "Starting"
    RUNNING = "Running"
    DRAINING = "Draining"
    """It finishes its step, and stops."""
    DRAINED = "Drained"
    """It has stopped, and waits for an order to go on."""
    RESTARTING = "Restarting"
    WAITING = "Waiting"
    """It can't go on without what its reason names."""
    HELD = "Held"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


_STATES = {state.value: state for state in WorkerState}


@dataclass(frozen=True)
class ReportedCheckpoint:
    """The newest durable checkpoint."""

    step: int
    time: datetime


@dataclass(frozen=True)
class WorkerReport:
    """What a worker knows of itself and, on the coordinator, of its gang.

    Attributes
    ----------
    generation, workers
        Of the run that the ledger asks for.
    attempt
        The attempt it speaks of.
    restarts
        Attempts that did not end orderly, as far as this process has seen them.
    state
        None where a reader doesn't know it.
    stage
        What it is at, in words.
    epsilon_spent
        Epsilon of `charged` draws, as a decimal rounded up; None while it is computed.
    evaluation
        The task's public figures, and the step that they are of.
    """

    job_uid: str
    attempt: int
    generation: int = 0
    workers: int = 0
    restarts: int = 0
    state: WorkerState | None = None
    stage: str = ""
    reason: str | None = None
    message: str | None = None
    step: int = 0
    total_steps: int = 0
    charged: int = 0
    reserved_draws: int = 0
    samples_per_second: float | None = None
    epsilon_spent: str | None = None
    evaluation: Mapping[str, float] = field(default_factory=dict)
    checkpoint: ReportedCheckpoint | None = None
    heartbeat: datetime | None = None
    estimated_completion: datetime | None = None
    gpu: GpuStatus | None = None

    def to_json(self) -> Json:
        """The report as it is served."""
        checkpoint, gpu = self.checkpoint, self.gpu
        return {
            "jobUID": self.job_uid,
            "generation": self.generation,
            "attempt": self.attempt,
            "workers": self.workers,
            "restarts": self.restarts,
            "state": self.state,
            "stage": self.stage,
            "reason": self.reason,
            "message": self.message,
            "step": self.step,
            "totalSteps": self.total_steps,
            "charged": self.charged,
            "reservedDraws": self.reserved_draws,
            "samplesPerSecond": self.samples_per_second,
            "epsilonSpent": self.epsilon_spent,
            "evaluation": dict(self.evaluation) or None,
            "checkpoint": checkpoint
            and {"step": checkpoint.step, "time": checkpoint.time.isoformat(timespec="seconds")},
            "heartbeatTime": self.heartbeat and timestamp(self.heartbeat),
            "estimatedCompletionTime": self.estimated_completion
            and timestamp(self.estimated_completion),
            "gpu": gpu and gpu.model_dump(mode="json", exclude_unset=True),
        }

    @classmethod
    def read(cls, raw: object) -> WorkerReport | None:
        """The report in decoded JSON, or None where there is none worth the name.

        It is one if it names its job and its attempt.
        """
        if not isinstance(raw, dict):
            return None
        job_uid, attempt = raw.get("jobUID"), _count(raw.get("attempt"))
        if not isinstance(job_uid, str) or attempt is None:
            return None
        return cls(
            job_uid=job_uid,
            attempt=attempt,
            generation=_count(raw.get("generation")) or 0,
            workers=_count(raw.get("workers")) or 0,
            restarts=_count(raw.get("restarts")) or 0,
            state=_state(raw.get("state")),
            stage=_text(raw.get("stage")) or "",
            reason=_text(raw.get("reason")),
            message=_text(raw.get("message")),
            step=_count(raw.get("step")) or 0,
            total_steps=_count(raw.get("totalSteps")) or 0,
            charged=_count(raw.get("charged")) or 0,
            reserved_draws=_count(raw.get("reservedDraws")) or 0,
            samples_per_second=_rate(raw.get("samplesPerSecond")),
            epsilon_spent=_epsilon(raw.get("epsilonSpent")),
            evaluation=_evaluation(raw.get("evaluation")),
            checkpoint=_checkpoint(raw.get("checkpoint")),
            heartbeat=_moment(raw.get("heartbeatTime")),
            estimated_completion=_moment(raw.get("estimatedCompletionTime")),
            gpu=_gpu(raw.get("gpu")),
        )


def _state(value: Any) -> WorkerState | None:
    return _STATES.get(value) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # JSON knows integers without end
        return False


def _rate(value: Any) -> float | None:
    return value if _is_number(value) and _SLOWEST < value < _FASTEST else None


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    # JSON may hold half of a surrogate pair, which UTF-8 can't.
    return value[:_MAX_TEXT].encode(errors="replace").decode()


def _epsilon(value: Any) -> str | None:
    return value if isinstance(value, str) and _EPSILON.fullmatch(value) else None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _evaluation(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {
        name: figure
        for name, figure in value.items()
        if ending.is_figures_name(name) and _is_number(figure)
    }


def _checkpoint(value: Any) -> ReportedCheckpoint | None:
    if not isinstance(value, dict):
        return None
    step, time = _count(value.get("step")), _moment(value.get("time"))
    return ReportedCheckpoint(step, time) if step is not None and time is not None else None


def _gpu(value: Any) -> GpuStatus | None:
    if not isinstance(value, dict):
        return None
    try:
        gpu = GpuStatus.model_validate({k: v for k, v in value.items() if k in _GPU_FIELDS})
    except ValidationError:
        return None
    return gpu if _is_storable(gpu.model_dump()) else None


def _is_storable(value: Any) -> bool:
    """Whether the API server can store all integers in `value`: they have 64 bits there."""
    if isinstance(value, dict):
        return all(map(_is_storable, value.values()))
    if isinstance(value, list):
        return all(map(_is_storable, value))
    return type(value) is not int or abs(value) < 2**63
