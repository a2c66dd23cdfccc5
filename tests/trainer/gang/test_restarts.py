"""What follows a failed attempt: the rule that fits it, the restarts that are left, the pause."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dtjob_api.job.run_policy import Backoff, FailureAction, FailureRule
from dtjob_api.ledger.privacy_ledger import AttemptRecord
from dtjob_api.reasons import Reason
from dtjob_trainer.gang.restarts import may_restart, pause, ruling
from tests.support.builders import START


def a_rule(action: str = "Fail", **fits: object) -> FailureRule:
    return FailureRule.model_validate({"action": action, **fits})


@pytest.mark.parametrize(
    ("reason", "exit_code", "signal", "fits", "why"),
    [
        (Reason.RANK_FAILED, 3, None, {"exitCodes": [2, 3]}, "exit code 3"),
        (Reason.RANK_FAILED, 4, None, {"exitCodes": [2, 3]}, None),
        (Reason.RANK_FAILED, None, 9, {"signals": [9]}, "signal 9"),
        (Reason.RANK_FAILED, None, 9, {"exitCodes": [9]}, None),
        (Reason.RANK_FAILED, 9, None, {"signals": [9]}, None),
        (Reason.RANK_FAILED, 9, None, {"causes": ["WorkerLost"]}, None),
        # Of a kill for want of memory the signal says nothing.
        (Reason.OUT_OF_MEMORY, None, 9, {"signals": [9]}, None),
        (Reason.OUT_OF_MEMORY, None, 9, {"causes": ["OutOfMemory"]}, "OutOfMemory"),
        (Reason.STALLED, None, None, {"causes": ["OutOfMemory", "Stalled"]}, "Stalled"),
        (Reason.WORKER_LOST, None, None, {"causes": ["WorkerLost"]}, "WorkerLost"),
        (Reason.WORKER_LOST, None, None, {"causes": ["Stalled"], "signals": [9]}, None),
        ("a reason of another version", None, None, {"causes": ["Stalled"]}, None),
    ],
)
def test_a_rule_fits_by_cause_exit_code_or_signal(
    reason: str,
    exit_code: int | None,
    signal: int | None,
    fits: dict[str, object],
    why: str | None,
) -> None:
    rule = FailureRule.model_validate({"action": "Fail", **fits})
    found = ruling([rule], reason, exit_code, signal)
    assert (found.why if found else None) == why


def test_the_first_rule_that_fits_is_named() -> None:
    rules = [a_rule(exitCodes=[1]), a_rule("Ignore", exitCodes=[1, 2]), a_rule(exitCodes=[2])]
    found = ruling(rules, Reason.RANK_FAILED, 2, None)
    assert found is not None
    assert (found.number, found.action) == (1, FailureAction.IGNORE)
    assert found.words == "spec.runPolicy.rules[1] (exit code 2: Ignore)"


def ended(*ends: tuple[int, Reason]) -> list[AttemptRecord]:
    """Attempts that ended so many minutes before `START`, and why."""
    return [
        AttemptRecord(
            attempt=number,
            start=START - timedelta(days=1),
            end=START - timedelta(minutes=minutes),
            reason=reason,
        )
        for number, (minutes, reason) in enumerate(ends, start=1)
    ]


@pytest.mark.parametrize(
    ("attempts", "max_restarts", "expected"),
    [
        (ended(), 0, True),
        (ended((1, Reason.RANK_FAILED)), 0, False),
        (ended((1, Reason.RANK_FAILED)), 1, True),
        (ended(*[(1, Reason.RANK_FAILED)] * 2), 1, False),
        (ended((61, Reason.RANK_FAILED), (1, Reason.RANK_FAILED)), 1, True),
        (ended((59, Reason.RANK_FAILED), (1, Reason.RANK_FAILED)), 1, False),
        (ended(*[(1, Reason.COMPLETED)] * 9, (1, Reason.STOPPED)), 0, True),
        (ended(*[(1, Reason.WORKER_LOST)] * 20), 100, False),
        (ended(*[(1, Reason.PRIVACY_STATE_LOST)] * 9, (1, Reason.RANK_FAILED)), 1, True),
        (ended(*[(1, Reason.STORAGE_FULL)] * 9, *[(1, Reason.RANK_FAILED)] * 2), 1, False),
        ([AttemptRecord(attempt=1, start=START)], 0, True),
    ],
)
def test_restart_budget(attempts: list[AttemptRecord], max_restarts: int, expected: bool) -> None:
    """At most `max_restarts` failures an hour; what was asked for, or refused, costs nothing."""
    assert may_restart(attempts, START, max_restarts) is expected


def failed(*spans: tuple[float, float]) -> list[AttemptRecord]:
    """Attempts that failed, each begun and ended so many hours after `START`."""
    return [
        AttemptRecord(
            attempt=number,
            start=START + timedelta(hours=start),
            end=START + timedelta(hours=end),
            reason=Reason.RANK_FAILED,
        )
        for number, (start, end) in enumerate(spans, start=1)
    ]


AHEAD = 48
#: Failures 3 h apart, by a clock that was two days ahead, and one after it was put right.
APART = failed(*[(AHEAD + 3 * n, AHEAD + 3 * n + 2.9) for n in range(10)], (29.9, 30))
#: The same, but within minutes: five before the clock was put right, and one after a run of hours.
CLOSE = [(AHEAD + n / 60, AHEAD + (n + 1) / 60) for n in range(5)]
#: Coordinators in turn on a node whose clock is ahead, and on one whose clock is right.
IN_TURN = failed(*[(n / 60 + n % 2 * AHEAD, (n + 1) / 60 + n % 2 * AHEAD) for n in range(11)])
#: Short ones with a pause of hours between them, by a clock that was ahead.
PAUSED = failed((AHEAD, AHEAD + 0.1), (AHEAD + 2, AHEAD + 2.1))
#: Longer ones, which all lie within an hour.
IN_AN_HOUR = failed((AHEAD, AHEAD + 0.1), (AHEAD + 0.2, AHEAD + 0.9))
#: The clock was put right during the second, which seems to have ended before it began.
DURING = failed((AHEAD - 1, AHEAD - 0.9), (AHEAD, 3.9), (4, 6))


@pytest.mark.parametrize(
    ("attempts", "now", "max_restarts", "expected"),
    [
        (APART, 30, 2, True),
        (APART, 30, 1, False),
        (failed(*CLOSE, (4, 4.1)), 4.1, 5, False),
        (failed(*CLOSE, (4, 6)), 6, 1, True),
        (failed(*CLOSE, (4, 4.1)), AHEAD + 0.1, 1, True),
        (IN_TURN, 11 / 60, 10, False),
        (failed(*[(AHEAD - n, AHEAD - n + 0.1) for n in range(8)]), AHEAD - 7, 6, False),
        (PAUSED, 0, 1, True),
        (IN_AN_HOUR, 0, 1, False),
        (DURING, 6, 1, True),
    ],
    ids=[
        "apart",
        "one is near",
        "just put right",
        "hours after",
        "caught up",
        "in turn",
        "back",
        "a pause of hours",
        "within the hour",
        "during an attempt",
    ],
)
def test_restart_budget_of_a_clock_that_was_put_right(
    attempts: list[AttemptRecord], now: float, max_restarts: int, expected: bool
) -> None:
    """A time in the future does not show when an attempt ended; order and distances do."""
    assert may_restart(attempts, START + timedelta(hours=now), max_restarts) is expected


def test_what_a_rule_ignores_counts_against_nothing() -> None:
    attempts = [record.model_copy(update={"ignored": True}) for record in failed(*[(0, 0.1)] * 9)]
    assert may_restart(attempts, START + timedelta(hours=0.1), 0)


BACKOFF = Backoff(initial_seconds=2, max_seconds=50)


@pytest.mark.parametrize(
    ("failures", "whole"), [(0, 0), (1, 2), (2, 4), (3, 8), (5, 32), (6, 50), (19, 50)]
)
def test_the_pause_doubles_up_to_its_bound(failures: int, whole: float) -> None:
    attempts = ended(*[(1, Reason.RANK_FAILED)] * failures)
    assert pause(attempts, START, BACKOFF, 1.0) == whole
    assert pause(attempts, START, BACKOFF, 0.0) == whole / 2


def test_the_pause_counts_the_failures_of_an_hour_and_those_that_are_ignored() -> None:
    old = ended(*[(61, Reason.RANK_FAILED)] * 9, (1, Reason.STOPPED))
    assert pause(old, START, BACKOFF, 1.0) == 0
    ignored = ended(*[(1, Reason.WORKER_LOST)] * 3)
    ignored = [record.model_copy(update={"ignored": True}) for record in ignored]
    assert pause(ignored, START, BACKOFF, 1.0) == 8
    assert pause(ignored, START, Backoff(initial_seconds=0, max_seconds=0), 1.0) == 0
