"""When a changed status is worth a write: news at once, figures now and then.

Keeps a start within ten writes, a running job at one patch each `telemetry_seconds`, and all
jobs that run at ten a second.
"""

from __future__ import annotations

from datetime import datetime

from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_operator.decide.status.moves import without_moves
from dtjob_operator.read.status_conditions import condition, is_true
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.settings import Settings

QUIET = frozenset(
    {
        Reason.PLANNING,
        Reason.PLANNED,
        Reason.CREATING_RESOURCES,
        Reason.RESOURCES_CREATED,
        Reason.WAITING_FOR_WORKERS,
        Reason.RENDEZVOUS_COMPLETE,
        Reason.PREFLIGHT,
        Reason.TRAINING,
        Reason.RESTARTING,
        Reason.NO_CHECKPOINT_YET,
        Reason.CHECKPOINT_RECORDED,
        Reason.POLICY_ENFORCED,
        Reason.ENFORCEMENT_UNKNOWN,
        Reason.POLICY_NOT_ENFORCED,
        Reason.POLICY_NONE,
        Reason.API_SERVER_ADDRESS_UNKNOWN,
        Reason.FINISHED,
        Reason.SUSPENDING,
        Reason.SUSPENDED,
        Reason.RESUMED,
        Reason.RESIZING,
        Reason.RESIZED,
        Reason.ADDING_WORKERS,
        Reason.WAITING_FOR_CHECKPOINT,
        Reason.WAITING_FOR_TRAINING,
    }
)
"""Reasons of the regular course, which the phase shows, and those that hold for a job's whole life.
Any other is news by itself."""

_START_FACTOR = 2
# Writes of figures in a second, whatever the number of jobs that run.
_WRITES_PER_SECOND = 10


def seconds_until_write(
    stored: Json,
    new: Json,
    written: datetime | None,
    now: datetime,
    settings: Settings,
    jobs_running: int,
) -> float | None:
    """How long a status has to wait for its write: 0 at once, None if it has no news.

    Parameters
    ----------
    stored, new
        The status as it is stored and as it should read.
    written
        When this operator last wrote it, if it did.
    jobs_running
        Among how many jobs the writes of figures are shared out.
    """
    if without_moves(stored, stored) == without_moves(new, stored):
        return None
    if written is None or _is_news(stored, new):
        return 0.0
    figures = max(settings.telemetry_seconds, jobs_running / _WRITES_PER_SECOND)
    # Counters of a start change often and say little: they wait longer than a running job's.
    running = new.get("phase") in {Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED}
    pause = figures if running else settings.telemetry_seconds * _START_FACTOR
    since = (now - written).total_seconds()
    # The clock was put back: the pause may long be over.
    return max(0.0, pause - since) if since >= 0 else 0.0


def _is_news(stored: Json, new: Json) -> bool:
    return (
        any(stored.get(field) != new.get(field) for field in ("phase", "observedGeneration"))
        or _troubles(stored) != _troubles(new)
        or _asked_for(stored) != _asked_for(new)
        or _is_complete(new) > _is_complete(stored)
        or has_first_figures(new) > has_first_figures(stored)
        or _takes_epsilon_back(stored, new)
    )


def _asked_for(status: Json) -> list[str | None]:
    """How far the job is with what its user has asked for since it began."""
    kinds = (ConditionType.SUSPENDED, ConditionType.RESIZED)
    return [(condition(status, kind) or {}).get("reason") for kind in kinds]


def _is_complete(status: Json) -> bool:
    """Whether all that the workers need is there, and they are up."""
    return is_true(status, ConditionType.RESOURCES_READY)


def has_first_figures(status: Json) -> bool:
    """Whether the status says how fast the job is."""
    return "samplesPerSecond" in status.get("progress", {})


def _takes_epsilon_back(stored: Json, new: Json) -> bool:
    """Whether the column states no figure any more: the one that is stored may be too little."""
    before, now = (str(each.get("display", {}).get("epsilon", "")) for each in (stored, new))
    return before[:1] in {"≤", *"0123456789"} and now.startswith("?")


def _troubles(status: Json) -> set[tuple[str, str, str]]:
    return {
        (condition["type"], condition["status"], condition["reason"])
        for condition in status.get("conditions") or []
        if condition["reason"] not in QUIET
    }
