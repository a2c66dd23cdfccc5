"""The coordinator's report, read with mistrust: it comes out of a pod that runs users' code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from dtjob_api.job.status import GpuStatus
from dtjob_api.ledger import ending
from dtjob_operator.terms import formatting
from dtjob_operator.terms.kinds import Json

_MAX_TEXT = 1024
_MAX_FIGURES = 32
_STAGE = re.compile(r"[A-Za-z][A-Za-z ,;:'()-]{0,127}")
# Samples per second: what is slower or faster is no training.
_SLOWEST, _FASTEST = 1e-6, 1e15


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


def read(raw: Json | None, job_uid: str) -> Report | None:
    """The job's report in `raw`, or None where there is none worth the name.

    An address may have passed on to another job's pod since it was asked.
    """
    if raw is None or raw.get("jobUID") != job_uid:
        return None
    if (attempt := _count(raw.get("attempt"))) is None:
        return None
    return Report(
        attempt=attempt,
        state=_text(raw.get("state")) or "",
        stage=_stage(raw.get("stage")),
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


def _number(value: Any) -> float | None:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # JSON knows integers without end
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and _SLOWEST < number < _FASTEST else None


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    # JSON may hold half of a surrogate pair, which UTF-8 can't.
    return value[:_MAX_TEXT].encode(errors="replace").decode()


def _stage(value: Any) -> str:
    """What it is at: words that stand for ours in a condition, so without room for a figure."""
    return value if isinstance(value, str) and _STAGE.fullmatch(value) else ""


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _evaluation(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    numbers = {
        name: formatting.significant(number)
        for name, figure in value.items()
        if ending.is_figures_name(name) and (number := _number(figure)) is not None
    }
    return dict(sorted(numbers.items())[:_MAX_FIGURES])


def _gpu(value: Any) -> Json | None:
    if not isinstance(value, dict):
        return None
    known = {f.alias or name for name, f in GpuStatus.model_fields.items()}
    try:
        gpu = GpuStatus.model_validate({k: v for k, v in value.items() if k in known}).to_dict()
    except ValidationError:
        return None
    return gpu if _is_storable(gpu) else None


def _is_storable(value: Any) -> bool:
    """Whether the API server can store all integers in `value`: they have 64 bits there."""
    if isinstance(value, dict):
        return all(map(_is_storable, value.values()))
    if isinstance(value, list):
        return all(map(_is_storable, value))
    return type(value) is not int or abs(value) < 2**63
