"""What holds of every version of a job, a ledger and a StatefulSet, whatever a test does to them.

Pure: it looks at one version after the other. Versions that somebody else than the operator wrote,
as where a test forges a status, are only what the next ones are compared with.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from dtjob_operator.terms.names import FIELD_MANAGER

Manifest = dict[str, Any]

STATUS_BYTES = 32 * 1024
"""A tenth of what etcd takes in one piece, and what a watch sends for each figure that moves."""
BURST, BURST_SECONDS = 25, 10.0
"""More writes of one object in so many seconds are a loop: a start takes 5, a kill one more."""
_ENDS = ("Succeeded", "Failed")


class Invariants:
    """Compares each version of an object with the one before it."""

    def __init__(self) -> None:
        self._before: dict[str, Manifest] = {}
        self._writes: dict[str, deque[float]] = {}

    def violations(self, event: str, obj: Manifest, at: float) -> Iterator[str]:
        """What a version that a watch reported at a time breaks.

        Parameters
        ----------
        event
            ADDED, MODIFIED or DELETED.
        at
            In seconds of any clock.
        """
        metadata = obj["metadata"]
        uid = metadata["uid"]
        if event == "DELETED":
            self._before.pop(uid, None)
            self._writes.pop(uid, None)
            return
        before = self._before.get(uid)
        if before is not None and _version(before) >= _version(obj):
            return  # a watch that began anew
        self._before[uid] = obj
        what = f"{obj['kind']} {metadata['namespace']}/{metadata['name']}"
        for found in self._of(before, obj, at):
            yield f"{what}: {found}"

    def _of(self, before: Manifest | None, obj: Manifest, at: float) -> Iterator[str]:
        if obj["kind"] == "PrivacyLedger":
            yield from _of_ledger(before, obj)
            return
        if not _is_by_operator(before, obj):
            return
        yield from self._of_pace(obj, at)
        if obj["kind"] == "DistributedTrainingJob":
            yield from _of_status(before, obj)
        if obj["kind"] == "StatefulSet":
            yield from _of_set(obj)

    def _of_pace(self, obj: Manifest, at: float) -> Iterator[str]:
        writes = self._writes.setdefault(obj["metadata"]["uid"], deque(maxlen=BURST))
        writes.append(at)
        if len(writes) == BURST and at - writes[0] < BURST_SECONDS:
            yield f"the operator wrote it {BURST} times in {at - writes[0]:.1f} s"


def _version(obj: Manifest) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _is_by_operator(before: Manifest | None, obj: Manifest) -> bool:
    """Whether the operator wrote this version: an entry of its in managedFields is of a new time.

    Who takes a field away changes the entries of its owners, but not their times.
    """
    return bool(_own_writes(obj) - (_own_writes(before) if before is not None else set()))


def _own_writes(obj: Manifest) -> set[tuple[str, str, str]]:
    entries = obj["metadata"].get("managedFields") or []
    return {
        (entry["operation"], entry.get("subresource", ""), entry["time"])
        for entry in entries
        if entry["manager"] == FIELD_MANAGER
    }


def _of_ledger(before: Manifest | None, ledger: Manifest) -> Iterator[str]:
    """Rule 10, of one and the same ledger."""
    if before is None:
        return
    for field in ("charged", "attempt"):
        old, new = ((each.get("status") or {}).get(field, 0) for each in (before, ledger))
        if new < old:
            yield f"status.{field} went from {old} to {new}"
    if before["spec"]["plan"] != ledger["spec"]["plan"]:
        yield "its plan was changed"


def _of_set(stateful_set: Manifest) -> Iterator[str]:
    owners = stateful_set["metadata"].get("ownerReferences") or ()
    controllers = [each["kind"] for each in owners if each.get("controller")]
    if controllers != ["DistributedTrainingJob"]:
        yield f"it has the controllers {controllers}"


def _of_status(before: Manifest | None, job: Manifest) -> Iterator[str]:
    old, new = (before or {}).get("status") or {}, job.get("status") or {}
    size = len(json.dumps(new, separators=(",", ":")))
    if size > STATUS_BYTES:
        yield f"its status has {size} bytes"
    was_run, run = old.get("rerun", 0), new.get("rerun", 0)
    if run < was_run:
        yield f"it was at run {was_run}, and now it is at {run}"
    if before is not None and run > was_run:
        if not _end(old) or new["previousRuns"][-1]["rerun"] != was_run:
            yield f"run {run} began, and run {was_run} had not ended or is forgotten"
        old = {}  # another run spends, and ends, for itself
    for field in ("drawsCharged", "epsilonSpent"):
        was, now = ((each.get("privacy") or {}).get(field) for each in (old, new))
        lower, shown = _decimal(was), _decimal(now)
        if lower is not None and (shown is None or shown < lower):
            yield f"privacy.{field} went from {was} to {now}"
    ended = _end(old)
    if ended and (_end(new) != ended or new.get("phase") != old.get("phase")):
        yield f"it had {ended}, and now it is {new.get('phase')} {_end(new)}"
    types = [each["type"] for each in new.get("conditions") or ()]
    if len(set(types)) < len(types):
        yield f"a condition is there twice: {types}"


def _end(status: Manifest) -> str | None:
    conditions = status.get("conditions") or ()
    ends = [each["type"] for each in conditions if each["status"] == "True"]
    return next((end for end in _ENDS if end in ends), None)


def _decimal(value: Any) -> Decimal | None:
    try:
        return Decimal(str(value)) if value is not None else None
    except InvalidOperation:
        return None
