"""A gang of stand-ins: what the trainer's own code makes of ranks that only follow a script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.well_known import READINESS_PATH, REPORT_PATH
from tests.support.clusters.kube import wait_for
from tests.support.gangs.standin_gang import PlayedRun

pytestmark = pytest.mark.slow

Play = Callable[..., PlayedRun]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Start gangs; what still runs of them is killed at the end."""
    started: list[PlayedRun] = []

    def start(script: dict[str, Any] | None = None, **settings: Any) -> PlayedRun:
        started.append(PlayedRun.of(tmp_path, script or {}, **settings))
        return started[-1]

    yield start
    for run in started:
        for process in run.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait(60)


def test_every_step_is_charged_and_the_outcome_says_so(play: Play) -> None:
    run = play({"evaluation": {"accuracy": 0.5}})
    assert run.ended() == [0, 0]
    account = run.ledger_status()
    assert (account.attempt, account.charged, account.checkpoint.step) == (1, 12, 12)
    assert account.outcome.reason == Reason.COMPLETED
    assert account.outcome.result["evaluation"] == {"step": 12, "accuracy": 0.5}
    assert 0 < float(account.outcome.result["epsilonSpent"]) < 9


def test_a_worker_is_ready_within_a_second(play: Play) -> None:
    """Of its own time, the least of a few; on a machine so busy that all takes longer, in a few
    times what the import of its HTTP library takes there. That of torch takes 40 times as long."""
    run = play({"secondsPerStep": 60}, workers=1)
    took = []
    for _ in range(3):
        wait_for("it is ready", lambda: (said := run.get(READINESS_PATH)) and said.is_success, 60)
        fields = Path(f"/proc/{run.processes[0].pid}/stat").read_text().rpartition(")")[2].split()
        took.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        run.kill(0)
        run.start_worker(0)
    before = os.times().children_user
    subprocess.run([sys.executable, "-c", "import aiohttp.web"], check=True)
    assert min(took) < max(1, 5 * (os.times().children_user - before)), took


def test_report_and_metrics_are_the_trainers(play: Play) -> None:
    run = play(steps=2000)
    report = run.until_step(3)
    assert (report["state"], report["stage"], report["attempt"]) == ("Running", "training", 1)
    assert report["samplesPerSecond"] > 0
    assert float(report["epsilonSpent"]) > 0
    metrics = run.get("/metrics")
    assert metrics is not None
    assert "dtjob_draws_charged" in metrics.text


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "signal": ({"do": "Signal", "number": 11}, "RankFailed", "ended by SIGSEGV"),
    "exit": ({"do": "Exit", "number": 3}, "RankFailed", "exited with code 3"),
    "memory": ({"do": "Memory"}, "RankFailed", "ran out of memory"),
    "raise": ({"do": "Raise", "message": "no such disk"}, "RankFailed", "no such disk"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_crash_costs_its_lease_and_the_job_goes_on(play: Play, name: str) -> None:
    fault, reason, words = FAULTS[name]
    # Of two ranks the other one may be heard first, unless the first was ended by a signal.
    rank = int(name == "signal")
    run = play({"faults": [fault | {"rank": rank, "step": 7}]}, workers=1 + rank)
    assert set(run.ended()) == {0}
    account = run.ledger_status()
    first, second = account.attempts
    assert (first.reason, first.rank) == (reason, rank)
    assert words in first.message
    assert second.reason == "Completed"
    # Steps 5 and 6 were done and lost, with the rest of their lease of 5.
    assert (account.charged, account.checkpoint.step) == (12 + 5, 12)


def test_a_rank_that_hangs_is_ended_after_the_stall_time(play: Play) -> None:
    run = play({"faults": [{"do": "Hang", "rank": 1, "step": 2}]}, stall_seconds=4)
    assert run.ended() == [0, 0]
    first, _ = run.ledger_status().attempts
    assert first.reason == "Stalled"


def test_a_failure_for_good_is_the_outcome(play: Play) -> None:
    fault = {"do": "Fail", "reason": "DatasetInvalid", "message": "1436 records, not 1437"}
    run = play({"faults": [fault]})
    assert run.ended() == [1, 1]
    outcome = run.ledger_status().outcome
    assert (outcome.state, outcome.reason) == ("Failed", "DatasetInvalid")
    assert outcome.message == "1436 records, not 1437"


def test_a_refusal_holds_and_loses_nothing(play: Play) -> None:
    fault = {"do": "Refuse", "reason": "CheckpointLost", "message": "the volume is empty"}
    run = play({"faults": [fault]})
    assert run.ended() == [3, 3]
    account = run.ledger_status()
    assert (account.outcome, account.charged) == (None, 0)
    assert account.attempts[0].reason == "CheckpointLost"


def test_a_lost_volume_is_found_by_the_trainers_own_check(play: Play) -> None:
    run = play({"faults": [{"do": "LoseVolume", "step": 7}]})
    assert run.ended() == [3, 3]
    second = run.ledger_status().attempts[1]
    assert second.reason == "CheckpointLost"
    assert "is not on the checkpoint volume" in second.message


def test_a_worker_that_leaves_is_missed(play: Play) -> None:
    run = play({"faults": [{"do": "Leave", "rank": 1, "step": 2, "number": 137}]})
    assert run.processes[1].wait(30) == 137
    run.start_worker(1)
    assert run.ended() == [0, 0]
    assert run.ledger_status().attempts[0].reason == "WorkerLost"


def test_a_garbled_report_is_none_until_the_next_attempt(play: Play) -> None:
    garble, crash = {"do": "Garble", "step": 2}, {"do": "Signal", "step": 40}
    run = play({"faults": [garble, crash], "secondsPerStep": 0.05}, steps=2000)

    def garbled() -> bool:
        answer = run.get(REPORT_PATH)
        return answer is not None and not isinstance(answer.json(), dict)

    wait_for("nonsense", garbled, 30)
    wait_for("sense again", lambda: not garbled(), 30)
    assert run.until_step(1)["attempt"] == 2


def test_a_stop_is_orderly_however_slow(play: Play) -> None:
    run = play({"drainSeconds": 1}, steps=2000)
    run.until_step(3)
    asked = time.monotonic()
    run.processes[0].send_signal(signal.SIGTERM)
    wait_for("Draining", lambda: (said := run.get(REPORT_PATH)) and "Draining" in said.text, 30)
    assert run.processes[0].wait(30) == 0
    assert time.monotonic() - asked > 1
    account = run.ledger_status()
    assert account.attempts[0].reason == "Stopped"
    assert account.lease.closed_at == account.checkpoint.step


def test_what_is_no_script_is_told_as_a_tasks_own_mistake(play: Play) -> None:
    run = play({"secondsPerSteep": 1})
    assert run.ended() == [1, 1]
    outcome = run.ledger_status().outcome
    assert outcome.reason == "EntrypointInvalid"
    assert "secondsPerSteep" in outcome.message
