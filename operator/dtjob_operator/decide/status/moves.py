"""What of a status moves without being worth a write: small steps of figures, numbers in words."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from dtjob_api.reasons import Phase, Reason
from dtjob_operator.decide.calibrating import without_place
from dtjob_operator.terms.kinds import Json

_PARTS = ("progress", "gpu", "display")
_SHARE = 0.05
_UTILIZATION = 5
_END = timedelta(minutes=1)
# Heat and power move by themselves.
_SHARES_OF_GPUS = {
    "memoryUsedBytes": _SHARE,
    "memoryTotalBytes": _SHARE,
    "temperatureMaxCelsius": 0.1,
    "powerWatts": 0.2,
}
# Of a worker that fails again and again: names of containers, and in its own last words addresses,
# process numbers and times.
_NAME = re.compile(r"\b(?:0x)?[0-9a-f]{12,}\b")
_NUMBER = re.compile(rf"{_NAME.pattern}|[0-9]+")
_IN_OTHERS_WORDS = frozenset({Reason.WORKER_CRASHING, Reason.WORKER_NOT_STARTED})
_WITH_NAMES = frozenset({Reason.OUT_OF_MEMORY})


def without_moves(status: Json, stored: Json) -> Json:
    """A status to be compared with the stored one: small moves are taken back.

    What epsilon follows from (`privacy`, `checkpoint`) is compared to the last digit. A move is
    one of the stored figures, so that small ones add up to one that is written.
    """
    progress, gpu, display = (dict(status.get(part) or {}) for part in _PARTS)
    old_progress, old_gpu, old_display = (stored.get(part) or {} for part in _PARTS)
    progress.pop("heartbeatTime", None)
    if progress.get("percent") == old_progress.get("percent"):
        _take_back(progress, old_progress, "step", "epoch")
    if _are_close(progress.get("samplesPerSecond"), old_progress.get("samplesPerSecond"), _SHARE):
        _take_back(progress, old_progress, "samplesPerSecond")
    if _is_close_to(*(each.get("estimatedCompletionTime") for each in (progress, old_progress))):
        _take_back(progress, old_progress, "estimatedCompletionTime")
        _take_back(display, old_display, "eta")
    if _are_alike(gpu, old_gpu):
        gpu = dict(old_gpu)
        _take_back(display, old_display, "gpu", "memory")
    workers = dict(status.get("workers") or {})
    if status.get("phase") != Phase.RUNNING:
        # Pods come one by one, and what they are to be is told as well.
        _take_back(workers, stored.get("workers") or {}, "replicas")
    conditions = [_without_numbers(each) for each in status.get("conditions") or []]
    return status | {
        "progress": progress,
        "gpu": gpu,
        "workers": workers,
        "display": display,
        "conditions": without_place(conditions),
    }


def _take_back(fields: Json, stored: Json, *names: str) -> None:
    for name in names:
        fields.pop(name, None)
        if name in stored:
            fields[name] = stored[name]


def _are_close(new: Any, stored: Any, part: float) -> bool:
    """Whether a figure has moved by no more than a part of the stored one."""
    if new is None or stored is None:
        return False
    return abs(float(new) - float(stored)) <= part * float(stored)


def _is_close_to(new: str | None, stored: str | None) -> bool:
    """Whether the foreseen end has moved by no more than the column shows."""
    if new is None or stored is None:
        return False
    return abs(datetime.fromisoformat(new) - datetime.fromisoformat(stored)) < _END


def _are_alike(new: Json, stored: Json) -> bool:
    """Whether as many GPUs are used as before; which of them is used least is no news by itself."""
    if new.keys() != stored.keys() or new.get("count") != stored.get("count"):
        return False
    ranges = [each.get("utilizationPercent", {}) for each in (new, stored)]
    return all(
        abs(figure - ranges[1].get(name, figure)) <= _UTILIZATION
        for name, figure in ranges[0].items()
    ) and all(
        _are_close(new[name], stored[name], share)
        for name, share in _SHARES_OF_GPUS.items()
        if name in new
    )


def _without_numbers(condition: Json) -> Json:
    """A condition whose message is another only by what the same trouble has in it each time.

    Which pod it is and how it ended stands before the first colon, and is compared.
    """
    reason = condition["reason"]
    if reason not in _IN_OTHERS_WORDS | _WITH_NAMES:
        return condition
    pattern = _NUMBER if reason in _IN_OTHERS_WORDS else _NAME
    ours, colon, theirs = condition.get("message", "").partition(": ")
    return condition | {"message": ours + colon + pattern.sub("0", theirs)}
