"""Changes to the attempts of ledgers: their number, and the list of those that ended.

Beside removal, partial removal and rewriting stands what an honest writer does.
"""

from __future__ import annotations

from tests.support.rules.stored_ledgers import (
    FINISHED,
    LEDGER,
    RAISED,
    STARTED,
    TIME,
    ledger_status,
    segments,
)
from tests.support.rules.transitions import REMOVED, Json, edited

LAST = 2**31
_LATER = "2026-01-02T04:04:05Z"


def ended(attempt: int, reason: str = "RankFailed") -> Json:
    """The record of an attempt that is over."""
    message = "rank 0 ended with exit code 1"
    return {
        "attempt": attempt,
        "start": TIME,
        "end": TIME,
        "reason": reason,
        "message": message,
        "rank": 0,
        "exitCode": 1,
    }


def running(attempt: int) -> Json:
    return {"attempt": attempt, "start": TIME}


def full(*orderly: int, first: int = 1) -> list[Json]:
    """Twenty attempts, the last one running; those of these numbers were drained."""
    numbers = range(first, first + 19)
    records = [ended(n, "Stopped" if n in orderly else "RankFailed") for n in numbers]
    return [*records, running(first + 19)]


def with_attempts(records: list[Json]) -> Json:
    attempt = records[-1]["attempt"]
    return edited(STARTED, {"status.attempts": records, "status.attempt": attempt})


def next_attempt(records: list[Json], *left_out: int) -> Json:
    """What a supervisor writes when it begins: the last one is over, another runs."""
    *earlier, last = records
    kept = [record for record in earlier if record["attempt"] not in left_out]
    number = last["attempt"] + 1
    return {
        "attempt": number,
        "attempts": [*kept, ended(last["attempt"], "WorkerLost"), running(number)],
    }


_ONE, _TWO = STARTED["status"]["attempts"]
FAILURES, _MIXED, _REFUSED = full(), full(3, 7), full(9)
_REFUSED[3] = ended(4, "StorageFull")
_NINETEEN = full()[1:]

ATTEMPT_NUMBERS = [
    ledger_status("attempt-by-one", STARTED, {"attempt": 3}),
    ledger_status("attempt-by-two", STARTED, {"attempt": 4}, "status.attempt"),
    ledger_status("attempt-to-the-last-number", STARTED, {"attempt": LAST}, "status.attempt"),
    ledger_status(
        "attempt-beyond-the-last-number",
        STARTED,
        {"attempt": LAST + 1},
        "status.attempt",
        "status.attempt",
    ),
    ledger_status(
        "attempt-to-the-end-of-64-bits",
        STARTED,
        {"attempt": 2**63 - 1},
        "status.attempt",
        "status.attempt",
    ),
    ledger_status(
        "attempt-by-one-at-the-last-number",
        edited(STARTED, {"status.attempt": LAST}),
        {"attempt": LAST + 1},
        "status.attempt",
    ),
    ledger_status("attempt-raised-with-the-ledger", STARTED, {"attempt": 9, "restored": 9}),
    ledger_status(
        "attempt-raised-beyond-restored",
        STARTED,
        {"attempt": 9, "restored": 8},
        "status.attempt",
        "status.restored",
    ),
    ledger_status(
        "attempt-raised-by-an-old-restored", RAISED, {"attempt": 4, "restored": 2}, "status.attempt"
    ),
    ledger_status("restored-of-an-older-attempt", STARTED, {"restored": 1}, "status.restored"),
    ledger_status("raised-again-at-the-same-attempt", RAISED, {"charged": 40, **segments(40)}),
    ledger_status("first-status-of-any-attempt", LEDGER, {"attempt": 7}),
]
ATTEMPT_LISTS = [
    ledger_status("attempts-one-more", STARTED, next_attempt([_ONE, _TWO])),
    ledger_status("attempts-the-open-one-ends", STARTED, {"attempts": [_ONE, ended(2)]}),
    ledger_status(
        "attempts-end-and-outcome",
        STARTED,
        {"attempts": [_ONE, ended(2)], "outcome": FINISHED["status"]["outcome"]},
    ),
    ledger_status("attempts-end-after-the-outcome", FINISHED, {"attempts": [_ONE, ended(2)]}),
    ledger_status("attempts-full-of-failures", with_attempts(FAILURES), next_attempt(FAILURES, 1)),
    ledger_status("attempts-orderly-first", with_attempts(_MIXED), next_attempt(_MIXED, 3)),
    ledger_status("attempts-refused-first", with_attempts(_REFUSED), next_attempt(_REFUSED, 4)),
    ledger_status("attempts-19-and-one", with_attempts(_NINETEEN), next_attempt(_NINETEEN)),
    # Removal.
    ledger_status("attempts-removed", STARTED, {"attempts": REMOVED}, "status.attempts"),
    ledger_status("attempts-emptied", STARTED, {"attempts": []}, "status.attempts"),
    ledger_status("attempts-oldest-dropped", STARTED, {"attempts": [_TWO]}, "status.attempts"),
    ledger_status("attempts-newest-dropped", STARTED, {"attempts": [_ONE]}, "status.attempts"),
    ledger_status(
        "attempts-dropped-with-a-new-one",
        STARTED,
        {"attempt": 3, "attempts": [_TWO, running(3)]},
        "status.attempts",
    ),
    ledger_status(
        "attempts-full-and-one-dropped-for-nothing",
        with_attempts(FAILURES),
        {"attempts": FAILURES[1:]},
        "status.attempts",
    ),
    ledger_status(
        "attempts-full-and-two-dropped",
        with_attempts(FAILURES),
        next_attempt(FAILURES, 1, 2),
        "status.attempts",
    ),
    ledger_status(
        "attempts-a-failure-before-an-orderly-end",
        with_attempts(_MIXED),
        next_attempt(_MIXED, 1),
        "status.attempts",
    ),
    ledger_status(
        "attempts-the-later-orderly-end",
        with_attempts(_MIXED),
        next_attempt(_MIXED, 7),
        "status.attempts",
    ),
    ledger_status(
        "attempts-a-failure-from-the-middle",
        with_attempts(FAILURES),
        next_attempt(FAILURES, 5),
        "status.attempts",
    ),
    ledger_status(
        "attempts-of-a-list-of-19",
        with_attempts(_NINETEEN),
        next_attempt(_NINETEEN, 2),
        "status.attempts",
    ),
    # Rewriting.
    *(
        ledger_status(f"attempts-{what}", STARTED, {"attempts": records}, "status.attempts")
        for what, records in {
            "end-rewritten": [_ONE | {"end": _LATER}, _TWO],
            "reason-rewritten": [_ONE | {"reason": "Stopped"}, _TWO],
            "end-removed": [{k: v for k, v in _ONE.items() if k != "end"}, _TWO],
            "start-of-the-open-one-moved": [_ONE, ended(2) | {"start": _LATER}],
            "open-one-with-a-reason-and-no-end": [_ONE, _TWO | {"reason": "Stopped"}],
            "turned-round": [_TWO, _ONE],
            "twice": [_ONE, _TWO, _TWO],
        }.items()
    ),
    ledger_status(
        "attempts-of-an-attempt-to-come",
        STARTED,
        {"attempts": [_ONE, _TWO, running(3)]},
        "status.attempts",
        "status.attempts",
    ),
    ledger_status(
        "attempts-an-old-one-made-up",
        edited(STARTED, {"status.attempts": [_TWO]}),
        {"attempts": [ended(1, "Stopped"), _TWO]},
        "status.attempts",
    ),
    ledger_status(
        "attempts-an-old-one-made-up-at-a-new-attempt",
        edited(STARTED, {"status.attempts": [_TWO]}),
        {"attempt": 3, "attempts": [ended(1, "Stopped"), _TWO, running(3)]},
        "status.attempts",
    ),
    ledger_status(
        "attempts-the-current-one-made-up-later",
        edited(STARTED, {"status.attempts": [_ONE]}),
        {"attempts": [_ONE, ended(2, "Stopped")]},
        "status.attempts",
    ),
]
