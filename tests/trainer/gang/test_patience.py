"""What counts as a stall, and when no other attempt follows one by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    Lease,
    LedgerStatus,
    PrivacyLedger,
)
from dtjob_api.reasons import Reason
from dtjob_api.wire.pipe import Progress
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.gang.patience import Patience, needs_a_person, stalls_in_a_row
from tests.support.builders import checkpoint, new_ledger, privacy_plan

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def running(step: int) -> Progress:
    return Progress(WorkerState.RUNNING, "training", step)


def starting(step_estimate: float | None = None) -> Progress:
    return Progress(stage="dry run on synthetic data", step_estimate=step_estimate)


def test_the_first_step_has_time_to_load_and_compile() -> None:
    patience = Patience(10, 0, now=0.0)
    assert patience.lost(40.0) is None
    patience.received(starting(), 40.0)
    patience.received(running(118), 50.0)  # where a checkpoint was: no step
    assert not patience.has_stepped
    assert patience.lost(90.0) is None
    message = patience.lost(91.0)
    assert message is not None
    assert "no first step of the attempt for 41 s, which has 40 s" in message
    assert "runPolicy.stallSeconds is 10" in message


@pytest.mark.parametrize(("stalls", "allowed"), [(0, 10), (1, 20), (2, 40), (3, 40), (19, 40)])
def test_each_stall_before_it_doubles_the_time_of_a_step(stalls: int, allowed: int) -> None:
    patience = Patience(10, stalls, now=0.0)
    assert patience.allowed == 4 * allowed
    patience.received(running(0), 1.0)
    patience.received(running(1), 2.0)
    assert patience.allowed == allowed


def test_the_longest_step_is_remembered_by_the_next_attempt() -> None:
    """What comes again and again, such as a cache that is read, comes again."""
    first = Patience(10, 0, now=0.0)
    first.received(running(0), 5.0)
    first.received(running(1), 35.0)
    second = Patience(10, 0, now=100.0, longest=first.longest)
    assert not second.has_stepped
    assert second.allowed == 90.0
    second.received(running(1), 101.0)
    second.received(running(2), 102.0)
    assert second.has_stepped
    assert second.allowed == 90.0


def test_the_first_step_may_take_what_the_dry_run_says() -> None:
    patience = Patience(10, 0, now=0.0)
    patience.received(starting(step_estimate=300.0), 30.0)
    assert patience.lost(330.0) is None
    assert patience.lost(331.0) is not None


def test_other_steps_may_take_thrice_the_longest() -> None:
    patience = Patience(10, 0, now=0.0)
    patience.received(running(0), 5.0)
    patience.received(running(1), 35.0)
    assert patience.allowed == 90.0
    patience.received(running(2), 36.0)
    assert patience.lost(126.0) is None
    message = patience.lost(127.0)
    assert message is not None
    assert "no step for 91 s, 90 s being allowed" in message
    assert "the longest step took 30 s" in message


def test_quick_steps_have_stall_seconds_and_a_hang_after_them_is_seen() -> None:
    patience = Patience(10, 0, now=0.0)
    for step in range(5):
        patience.received(running(step), float(step))
    assert patience.allowed == 10
    assert patience.lost(14.5) is not None


def test_what_is_reported_between_steps_is_no_step() -> None:
    """A checkpoint that takes long beats once a second, and a slow start is no slow step."""
    patience = Patience(10, 0, now=0.0)
    patience.received(starting(), 35.0)
    patience.received(running(0), 70.0)
    patience.received(running(1), 71.0)
    for second in range(72, 100):
        patience.received(replace(running(1), stage="writing checkpoint and ledger"), float(second))
    assert patience.allowed == 10


def attempts(*reasons: Reason | None, first: int = 1) -> list[AttemptRecord]:
    made = []
    for number, reason in enumerate(reasons, first):
        end = None if reason is None else NOW + timedelta(minutes=number)
        text = None if reason is None else str(reason)
        made.append(AttemptRecord(attempt=number, start=NOW, end=end, reason=text))
    return made


STALLED = Reason.STALLED


@pytest.mark.parametrize(
    ("reasons", "count"),
    [
        ((), 0),
        ((None,), 0),
        ((STALLED, None), 1),
        ((STALLED, STALLED, Reason.STOPPED), 0),
        ((Reason.RANK_FAILED, STALLED, STALLED, None), 2),
    ],
)
def test_stalls_in_a_row(reasons: tuple[Reason | None, ...], count: int) -> None:
    assert stalls_in_a_row(LedgerStatus(attempts=attempts(*reasons))) == count


@pytest.mark.parametrize(
    ("step", "by", "count"), [(0, 4, 3), (10, 1, 3), (10, 2, 2), (10, 3, 1), (10, 4, 0)]
)
def test_a_new_checkpoint_ends_the_row(step: int, by: int, count: int) -> None:
    """The one of step 0 is of no step: the first lease brings it."""
    stalled = ledger(STALLED, STALLED, STALLED, charged=30, step=step, by=by)
    assert stalls_in_a_row(stalled.status) == count


def ledger(
    *reasons: Reason,
    charged: int,
    step: int = 0,
    by: int = 1,
    reserve: int = 30,
    leased: bool = True,
) -> PrivacyLedger:
    """Leases of 10 draws; the last attempt has one if `leased`.

    Attempts from number 2 on; the checkpoint is the one before them's, or that of attempt `by`.
    """
    last = len(reasons) + 1
    lease = None
    if leased:
        lease = Lease(attempt=last, from_draw=charged - 10, to_draw=charged, from_step=0)
    return new_ledger(
        privacy_plan(steps=200, replay_reserve_steps=reserve),
        attempt=last,
        charged=charged,
        lease=lease,
        checkpoint=checkpoint(step, charged, by),
        attempts=attempts(*reasons, first=2),
    )


def test_the_default_reserve_covers_three_stalls_and_none_is_taken_from_the_steps() -> None:
    assert needs_a_person(ledger(STALLED, charged=10), 2) is None
    assert needs_a_person(ledger(STALLED, STALLED, charged=20), 3) is None
    message = needs_a_person(ledger(STALLED, STALLED, STALLED, charged=30), 4)
    assert message is not None
    assert "3 attempts in a row have stalled" in message
    assert "runPolicy.stallSeconds" in message


@pytest.mark.parametrize(
    ("reserve", "step", "stops"), [(9, 0, True), (20, 0, False), (9, 10, True)]
)
def test_a_lease_that_the_reserve_does_not_cover_is_not_risked(
    reserve: int, step: int, stops: bool
) -> None:
    found = needs_a_person(ledger(STALLED, charged=step + 10, step=step, reserve=reserve), 2)
    assert (found is not None) == stops
    if found is not None:
        assert f"the reserve of {reserve} draws does not cover another" in found


def test_a_stall_that_took_no_lease_risks_none() -> None:
    """It was the import, or the dry run."""
    assert needs_a_person(ledger(STALLED, charged=10, reserve=0, leased=False), 2) is None


def test_who_has_brought_a_checkpoint_may_go_on() -> None:
    """So does the next one: the reserve bounds what they lose."""
    stalled = ledger(STALLED, STALLED, STALLED, charged=40, step=10, by=4, reserve=0)
    assert needs_a_person(stalled, 4) is None
    assert needs_a_person(ledger(STALLED, charged=20, step=10, by=1, reserve=0), 2) is not None
