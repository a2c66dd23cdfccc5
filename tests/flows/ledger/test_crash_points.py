"""A crash at every system call of lease, journal, checkpoint and publish (rules 10 to 14)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtjob_api.ledger.privacy_ledger import OutcomeState
from dtjob_api.reasons import Reason
from tests.support.builders import tiny_plan
from tests.support.ledgers.durability import Crash, Disk, Job, with_disk


def _crash_once(root: Path, crash_at: int, power: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a job that dies at call `crash_at`, then to its end; False if it never got there."""
    job = Job(root, tiny_plan(steps=3, lease_steps=2, reserve=2))
    job.create()
    disk = Disk(root, crash_at)
    with_disk(disk, monkeypatch)
    try:
        job.run()
        crashed = False
    except Crash:
        crashed = True
    if power:
        disk.power_off()
    disk.crash_at = None
    job.check()
    job.run_if_unfinished()
    outcome = job.check().status.outcome
    assert outcome is not None
    assert outcome.reason is Reason.COMPLETED
    newest = job.read().status.checkpoint
    assert newest is not None
    assert newest.step == job.plan.steps
    return crashed


@pytest.mark.slow
@pytest.mark.rule(10, 11, 13, 14)
@pytest.mark.parametrize("power", [False, True], ids=["process", "power"])
def test_job_completes_and_charges_every_draw_after_a_crash_at_any_call(
    power: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever dies wherever, `charged` covers what was handed out."""
    crash_at = 1
    while _crash_once(tmp_path / str(crash_at), crash_at, power, monkeypatch):
        crash_at += 1
    assert crash_at > 50


@pytest.mark.slow
@pytest.mark.rule(12)
@pytest.mark.parametrize("power", [False, True], ids=["process", "power"])
def test_crashes_in_every_attempt_end_by_rule_12(
    power: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts that all die at the same call end with the last checkpoint."""
    ends = set()
    for crash_at in range(1, 80, 6):
        root = tmp_path / str(crash_at)
        job = Job(root, tiny_plan(steps=6, lease_steps=2, reserve=3))
        job.create()
        job.opened()  # the first attempt dies with its first lease, which it never used
        for _ in range(8):
            disk = Disk(root, crash_at)
            with_disk(disk, monkeypatch)
            try:
                job.run()
            except Crash:
                if power:
                    disk.power_off()
            disk.crash_at = None
            ledger = job.check()
            if ledger.status.outcome is not None:
                break
        job.run_if_unfinished()
        ledger = job.check()
        outcome, last = ledger.status.outcome, ledger.status.checkpoint
        assert outcome is not None
        assert last is not None
        # A run of no step has no result.
        assert outcome.result == ({"step": last.step} if last.step else None)
        if outcome.reason is Reason.PRIVACY_BUDGET_EXHAUSTED:
            assert ledger.status.charged == ledger.spec.reserved_draws
            assert last.step < 6
            assert (outcome.state is OutcomeState.SUCCEEDED) == (last.step > 0)
        ends.add(outcome.reason)
    assert ends == {Reason.COMPLETED, Reason.PRIVACY_BUDGET_EXHAUSTED}
