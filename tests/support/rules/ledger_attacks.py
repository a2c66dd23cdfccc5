"""All changes to ledgers; here those of bounds, `closedAt`, checkpoints and what a volume proves.

Each family has what an honest writer does beside removal, partial removal and rewriting. `SERIES`
has attacks that take several writes.
"""

from __future__ import annotations

from typing import Any

from tests.support.rules.attempt_attacks import (
    ATTEMPT_LISTS,
    ATTEMPT_NUMBERS,
    FAILURES,
    ended,
    next_attempt,
    with_attempts,
)
from tests.support.rules.ledger_transitions import LEDGER_TRANSITIONS
from tests.support.rules.manifest_cases import Case
from tests.support.rules.stored_ledgers import (
    CHECKPOINT,
    CLOSED,
    FINISHED,
    FOUND,
    LEDGER,
    NEXT_LEASE,
    STARTED,
    ledger_spec,
    ledger_status,
    segments,
)
from tests.support.rules.transitions import REMOVED, Json, edited

_BOUNDS = [
    ledger_status(f"{path}-beyond-its-bound", STARTED, {path: 2**62}, *refused)
    for path, refused in {
        "charged": ("status.charged", "status.charged", "status.segments"),
        "lease.toDraw": ("status.lease", "status.lease", "status.lease.toDraw"),
        "checkpoint.step": ("status.checkpoint", "status.checkpoint.step"),
        "checkpoint.attempt": ("status.checkpoint", "status.checkpoint.attempt"),
        "drained": ("status.drained", "status.drained"),
        "restored": ("status.restored", "status.restored", "status.restored"),
    }.items()
]
_TURNED_ROUND = {"attempt": 1, "fromDraw": 30, "toDraw": 20, "fromStep": 10}
_REST = {"attempt": 3, "fromDraw": 24, "toDraw": 34, "fromStep": 14}
_CLOSED_AT = [
    ledger_status("closed-by-its-own-attempt", STARTED, {"lease.closedAt": 24}),
    ledger_status(
        "closed-with-checkpoint-and-outcome",
        STARTED,
        {
            "lease.closedAt": 24,
            "checkpoint": {**CHECKPOINT, "step": 14, "charged": 30},
            "outcome": FINISHED["status"]["outcome"],
        },
    ),
    ledger_status(
        "closed-by-a-later-attempt",
        edited(STARTED, {"status.attempt": 3}),
        {"lease.closedAt": 24},
        "status.lease",
    ),
    ledger_status(
        "closed-as-a-later-attempt-begins",
        STARTED,
        {"attempt": 3, "lease.closedAt": 24},
        "status.lease",
    ),
    ledger_status(
        "closed-as-it-is-granted",
        STARTED,
        {"charged": 40, **segments(30, 10), "lease": {**NEXT_LEASE, "closedAt": 30}},
        "status.lease",
    ),
    ledger_status(
        "closed-as-it-is-granted-after-a-closed-one",
        edited(CLOSED, {"status.attempt": 3}),
        {"charged": 34, **segments(34), "lease": {**_REST, "closedAt": 24}},
        "status.lease",
    ),
]
_FORWARD = [
    ledger_status(
        f"checkpoint-{what}",
        stored,
        {"checkpoint": {**CHECKPOINT, **changes}},
        *refused,
    )
    for what, stored, changes, *refused in (
        ("as-it-was", STARTED, {}),
        ("of-a-later-step", STARTED, {"step": 12, "charged": 30}),
        ("of-a-later-attempt", edited(STARTED, {"status.attempt": 3}), {"attempt": 3, "step": 12}),
        (
            "of-a-later-attempt-and-an-earlier-step",
            edited(STARTED, {"status.attempt": 3}),
            {"attempt": 3, "step": 9},
            "status.checkpoint",
        ),
        ("with-less-charged", STARTED, {"step": 12, "charged": 19}, "status.checkpoint"),
        ("exchanged-in-place", STARTED, {"sha256": "f" * 64}, "status.checkpoint"),
        ("moved", STARTED, {"path": "attempt-1/step-10.pt"}, "status.checkpoint"),
        ("of-more-steps-than-draws", STARTED, {"step": 21, "charged": 20}, "status.checkpoint"),
    )
]

_VOLUME = FOUND["status"]["volume"]
_GONE = {"volume": REMOVED}


def _raise(attempt: int, charged: int, **changes: Any) -> Json:
    """What who may restore a ledger writes to raise it."""
    return {
        "attempt": attempt,
        "restored": attempt,
        "charged": charged,
        **segments(30, charged - 30),
        **changes,
    }


_FOUND = [
    ledger_status(f"volume-{what}", stored, changes, *("status.volume" for _ in range(refused)))
    for what, stored, changes, refused in (
        ("found", STARTED, {"volume": _VOLUME}, False),
        ("found-to-prove-more", FOUND, {"volume": _VOLUME | {"charged": 70, "attempt": 5}}, False),
        ("with-a-checkpoint", FOUND, {"volume": _VOLUME | {"checkpoint": CHECKPOINT}}, False),
        ("stays-with-a-new-attempt", FOUND, {"attempt": 3}, False),
        ("raised", FOUND, _raise(4, 60, **_GONE), False),
        ("raised-higher", FOUND, _raise(9, 100, **_GONE), False),
        ("raised-with-another", FOUND, _raise(4, 60, volume={"attempt": 1, "charged": 0}), False),
        (
            "of-a-ledger-that-has-charged-it",
            edited(STARTED, {"status.volume": {"attempt": 2, "leased": 2, "charged": 30}}),
            _GONE,
            False,
        ),
        ("removed", FOUND, _GONE, True),
        ("removed-with-a-new-attempt", FOUND, {"attempt": 3, **_GONE}, True),
        ("of-fewer-draws", FOUND, {"volume": _VOLUME | {"charged": 59}}, True),
        ("of-an-earlier-attempt", FOUND, {"volume": _VOLUME | {"attempt": 3}}, True),
        ("of-an-earlier-lease", FOUND, {"volume": _VOLUME | {"leased": 2}}, True),
        ("without-its-lease", FOUND, {"volume": {"attempt": 4, "charged": 60}}, True),
        ("raised-by-too-few-draws", FOUND, _raise(4, 59, **_GONE), True),
        ("raised-to-an-earlier-attempt", FOUND, _raise(3, 60, **_GONE), True),
        (
            "charged-without-the-lease",
            edited(FOUND, {"status.attempt": 4}),
            {"charged": 60, **segments(30, 30), **_GONE},
            True,
        ),
        (
            "lowered-and-raised-to-it",
            FOUND,
            _raise(3, 40, volume={"attempt": 3, "leased": 3, "charged": 40}),
            True,
        ),
    )
]

_AT_THREE = edited(STARTED, {"status.attempt": 3})
_WITH_DIGEST = edited(STARTED, {"status.initialModelDigest": "sha256:" + "0" * 64})
_ALONE = [
    # Each is refused by a rule that all others let pass.
    ledger_status(
        "charged-lowered-above-the-lease",
        edited(STARTED, {"status.charged": 40, "status.segments": segments(40)["segments"]}),
        {"charged": 35, **segments(35)},
        "status.charged",
    ),
    ledger_status("attempt-lowered-to-the-lease-s", _AT_THREE, {"attempt": 2}, "status.attempt"),
    ledger_status("lease-that-is-not-charged", STARTED, {"lease": NEXT_LEASE}, "status.lease"),
    ledger_status(
        "initial-model-exchanged",
        _WITH_DIGEST,
        {"initialModelDigest": "sha256:" + "1" * 64},
        "status.initialModelDigest",
    ),
    ledger_status(
        "initial-model-removed",
        _WITH_DIGEST,
        {"initialModelDigest": REMOVED},
        "status.initialModelDigest",
    ),
    ledger_status("initial-model-noted", STARTED, {"initialModelDigest": "sha256:" + "0" * 64}),
    ledger_status(
        "first-status-raised-ahead-of-itself",
        LEDGER,
        {"": {"attempt": 1, "restored": 2}},
        "status.restored",
    ),
    ledger_status(
        "first-status-with-a-lease-that-ends-before-it-begins",
        LEDGER,
        {"": {"attempt": 1, "charged": 30, "lease": _TURNED_ROUND, **segments(30)}},
        "status.lease.toDraw",
    ),
    ledger_spec("plan-more-steps", STARTED, {"plan.steps": 337}, "spec.plan"),
    ledger_spec(
        "plan-without-noise",
        STARTED,
        {"plan.noiseMultiplier": REMOVED},
        "spec.plan",
        "spec.plan",
    ),
]

LEDGER_CHANGES = [
    *LEDGER_TRANSITIONS,
    *_ALONE,
    *ATTEMPT_NUMBERS,
    *_BOUNDS,
    *ATTEMPT_LISTS,
    *_CLOSED_AT,
    *_FORWARD,
    *_FOUND,
]
"""All changes of ledgers."""

BAD_LEDGERS = [
    Case(
        "ledger-reserve-beyond-the-plan",
        edited(LEDGER, {"spec.reservedDraws": 367}),
        [
            "spec.reservedDraws: Invalid value: must not exceed plan.steps + "
            "plan.replayReserveSteps: the noise is calibrated for no more draws"
        ],
    ),
    *(
        Case(
            f"ledger-plan-without-{field}",
            edited(LEDGER, {f"spec.plan.{field}": REMOVED}),
            [
                "spec.plan: Invalid value: noiseMultiplier, sampleRate, delta and maxGradNorm are "
                "required with mode DPSGD"
            ],
        )
        for field in ("noiseMultiplier", "sampleRate", "delta", "maxGradNorm")
    ),
]
"""New ledgers that nobody can make."""


def _series(*changes: Json) -> list[Json]:
    return [{f"status.{path}": value for path, value in each.items()} for each in changes]


SERIES: dict[str, tuple[Json, list[dict[str, Any]]]] = {
    "the list is emptied one by one": (
        with_attempts(FAILURES),
        _series(*({"attempts": FAILURES[n:]} for n in range(1, 20))),
    ),
    "a failure is turned into a stop, and leaves first": (
        with_attempts(FAILURES),
        _series(
            {"attempts": [*FAILURES[:9], FAILURES[9] | {"reason": "Stopped"}, *FAILURES[10:]]},
            next_attempt(FAILURES, 10),
        ),
    ),
    "the list is removed and written anew": (
        STARTED,
        _series({"attempts": REMOVED}, {"attempts": [ended(2, "Stopped")]}),
    ),
    "a lease is given back after its end": (
        edited(STARTED, {"status.attempt": 3}),
        _series({"lease.closedAt": 20}, {"charged": 30, **segments(30), "lease": _REST}),
    ),
    "a checkpoint is removed and an older one written": (
        STARTED,
        _series({"checkpoint": REMOVED}, {"checkpoint": {**CHECKPOINT, "step": 1}}),
    ),
    "what a volume proves is removed and less is written": (
        FOUND,
        _series(
            _GONE,
            {"volume": {"attempt": 3, "leased": 2, "charged": 40}},
            _raise(3, 50, **_GONE),
        ),
    ),
    "the attempt leaps and the leap is explained later": (
        STARTED,
        _series({"attempt": 9}, {"restored": 9}),
    ),
}
"""Attacks of several writes, by what they try: the stored ledger, then the changes of each write.
None of them is allowed, so that none leads on to the next."""
