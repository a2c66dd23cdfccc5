"""Real deaths of the processes that nobody trains in: the forkserver and the store."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.gangs.gang_run import GangRun, signal_all
from tests.support.gangs.oracle import assert_finished

pytestmark = pytest.mark.processes


def started(folder: Path, runs: list[GangRun], **settings: Any) -> GangRun:
    run = GangRun(folder, stall_seconds=120, executed_anew=True, **settings)
    runs.append(run)
    run.create_ledger()
    run.start()
    return run


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def forkserver(run: GangRun, position: int) -> int:
    (found,) = [
        child
        for child in children(run.processes[position].pid)
        if b"dtjob_trainer.rank.preload" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found


def store(run: GangRun) -> int:
    """What the forkserver of the coordinator has started and no rank is."""
    ranks = {e.pid for e in run.executed()}
    (found,) = set(children(forkserver(run, 0))) - ranks
    return found


def test_store_is_killed(tmp_path: Path, runs: list[GangRun]) -> None:
    """Ranks that have met don't miss it; the next attempt meets in another one."""
    run = started(tmp_path, runs)
    run.wait_for_step(8)
    first = store(run)
    signal_all([first], signal.SIGKILL)
    run.wait("another store", lambda: set(children(forkserver(run, 0))) - {first}, 10)
    victims = run.wait_for_step(20)
    assert run.ledger.read().ledger.status.attempt == 1
    signal_all([e.pid for e in victims if e.rank == 1], signal.SIGKILL)
    assert assert_finished(run).status.attempt == 2


@pytest.mark.parametrize("position", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_forkserver_is_killed(tmp_path: Path, runs: list[GangRun], position: int) -> None:
    """Its ranks go with it, and on the coordinator the store; the attempt after that finishes."""
    run = started(tmp_path, runs)
    run.wait_for_step(8)
    signal_all([forkserver(run, position)], signal.SIGKILL)
    assert assert_finished(run).status.attempt == 2
