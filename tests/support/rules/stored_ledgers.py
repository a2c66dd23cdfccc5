"""Ledgers as they may be stored, from a new one to a finished one, and changes written to them."""

from __future__ import annotations

from tests.support.builders import created, new_ledger, privacy_plan, segment
from tests.support.rules.transitions import Json, Transition, edited

_SHA = "0123456789abcdef" * 4
TIME = "2026-01-02T03:04:05Z"
_PLAN = privacy_plan()
LEDGER: Json = edited(
    created(new_ledger(_PLAN, job_uid="01234567-89ab-cdef-0123-456789abcdef", workers=2)),
    {"spec.run.generation": 2},
)
_LEASE = {"attempt": 2, "fromDraw": 20, "toDraw": 30, "fromStep": 10}
CHECKPOINT = {
    "step": 10,
    "charged": 20,
    "attempt": 2,
    "path": "attempt-2/step-10.pt",
    "sha256": _SHA,
    "time": TIME,
}
SEGMENT = segment(_PLAN, 30, "ghcr.io/dtjob/trainer:0.1.0").to_dict()
STARTED = edited(
    LEDGER,
    {
        "status": {
            "attempt": 2,
            "charged": 30,
            "lease": _LEASE,
            "segments": [SEGMENT],
            "checkpoint": CHECKPOINT,
            "drained": 1,
            "attempts": [
                {"attempt": 1, "start": TIME, "end": TIME, "rank": 0, "signal": 9},
                {"attempt": 2, "start": TIME},
            ],
        }
    },
)
CONTENT = {"format": 1, "sha256": _SHA}
WITH_CONTENT = edited(STARTED, {"spec.content": CONTENT})
CLOSED = edited(STARTED, {"status.lease.closedAt": 24})
OUTCOME = {
    "state": "Succeeded",
    "reason": "Completed",
    "message": "336 steps",
    "time": TIME,
    "result": {"accuracy": 0.943, "digest": {"sha256": _SHA}},
}
FOUND = edited(STARTED, {"status.volume": {"attempt": 4, "leased": 3, "charged": 60}})
RAISED = edited(CLOSED, {"status.restored": 2})
FINISHED = edited(STARTED, {"status.outcome": OUTCOME})
SETTLED = edited(STARTED, {"spec.reservedDraws": 30})


def segments(*draws: int) -> Json:
    """Segments of so many draws each, as a change of the status."""
    return {"segments": [SEGMENT | {"draws": each} for each in draws]}


NEXT_LEASE = {"attempt": 2, "fromDraw": 30, "toDraw": 40, "fromStep": 20}


def ledger_status(name: str, stored: Json, changes: Json, *refused: str) -> Transition:
    """A write to a ledger's status; the paths of `changes` lie in it."""
    prefixed = {f"status.{path}" if path else "status": value for path, value in changes.items()}
    return Transition(name, stored, prefixed, "status", refused)


def ledger_spec(name: str, stored: Json, changes: Json, *refused: str) -> Transition:
    prefixed = {f"spec.{path}": value for path, value in changes.items()}
    return Transition(name, stored, prefixed, "spec", refused)
