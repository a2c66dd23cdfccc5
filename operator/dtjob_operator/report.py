"""The coordinator's report, read with mistrust: it comes out of a pod that runs users' code."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from dtjob_api.status import GpuStatus
from dtjob_operator import figures
from dtjob_operator.kinds import Json

_MAX_TEXT = 1024
_MAX_FIGURES = 32
_MAX_NAME = 63


@dataclass(frozen=True)
class Report:
    """What of a report can be shown; whatever is malformed in it is absent.

    Attributes
    ----------
    attempt
        The attempt it speaks of.
    evaluation
        The task's public figures, as text.
    """

    attempt: int
    state: str = ""
    stage: str = ""
    step: int = 0
    samples_per_second: float | None = None
    evaluation: dict[str, str] = field(default_factory=dict)
    heartbeat: datetime | None = None
    estimated_completion: datetime | None = None
    gpu: Json | None = None
    reason: str | None = None
    message: str | None = None


def read(raw: Json | None) -> Report | None:
    """The report in `raw`, or None where there is none worth the name."""
    if raw is None or (attempt := _count(raw.get("attempt"))) is None:
        return None
    return Report(
        attempt=attempt,
        state=_text(raw.get("state")) or "",
        stage=_text(raw.get("stage")) or "",
        step=_count(raw.get("step")) or 0,
        samples_per_second=_positive(raw.get("samplesPerSecond")),
        evaluation=_evaluation(raw.get("evaluation")),
        heartbeat=_moment(raw.get("heartbeatTime")),
        estimated_completion=_moment(raw.get("estimatedCompletionTime")),
        gpu=_gpu(raw.get("gpu")),
        reason=_text(raw.get("reason")),
        message=_text(raw.get("message")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _positive(value: Any) -> float | None:
    number = type(value) in (int, float) and math.isfinite(value) and 0 < value < 1e15
    return float(value) if number else None


def _text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def _evaluation(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    numbers = {
        name[:_MAX_NAME]: figures.significant(figure)
        for name, figure in value.items()
        if isinstance(name, str) and type(figure) in (int, float) and math.isfinite(figure)
    }
    return dict(sorted(numbers.items())[:_MAX_FIGURES])


def _gpu(value: Any) -> Json | None:
    if not isinstance(value, dict):
        return None
    known = {f.alias or name for name, f in GpuStatus.model_fields.items()}
    try:
        return GpuStatus.model_validate({k: v for k, v in value.items() if k in known}).to_dict()
    except ValidationError:
        return None
