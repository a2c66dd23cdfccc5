"""What ranks print lies beside the checkpoints when their processes are gone, within its bound."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import log_path, sizes
from tests.support.gangs.gang_run import signal_all
from tests.support.gangs.oracle import assert_finished

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]


def chatty(lines: int) -> dict[str, Any]:
    return {"entrypoint": "slow_task:chatty", "args": {"seconds": 0.03, "lines": lines}}


@pytest.mark.rule(20)
def test_logs_of_all_ranks_and_attempts_are_kept_and_nothing_of_records_is_in_them(
    start: Any,
) -> None:
    run = start(gate_at=8, steps=12, task=chatty(1))
    victim = next(e for e in run.wait_for_step(8) if e.rank == 1)
    signal_all([victim.pid], signal.SIGKILL)
    run.open_gate()
    assert assert_finished(run).status.attempt == 2
    keys = {LogKey(attempt, rank) for attempt in (1, 2) for rank in (0, 1)}
    assert set(sizes(run.state)) == keys
    for key in keys:
        lines = log_path(run.state, key).read_text().splitlines()
        assert json.loads(lines[0])["message"] == "rank started"
        assert lines[1] == "said by a program"
        last = json.loads(lines[-1])
        assert (last["message"], last["rank"]) == ("rank ended", key.rank)
        assert lines.count("said where the task is made") == 1
        assert not any("private" in line for line in lines)
    killed = json.loads(log_path(run.state, LogKey(1, 1)).read_text().splitlines()[-1])
    assert (killed["attempt"], killed["signal"]) == (1, signal.SIGKILL)
    for position in (0, 1):
        shown = run.log(position).read_text()
        assert shown.count("said where the task is made\n") == 2
        assert "private" not in shown


def test_one_bound_holds_for_all_and_each_rank_has_its_share(start: Any) -> None:
    # New programs, as in pods: what they begin with prints to a file.
    run = start(gate_at=3, steps=6, task=chatty(3000), log_bytes=64 << 10, executed_anew=True)
    victim = next(e for e in run.wait_for_step(3) if e.rank == 1)
    signal_all([victim.pid], signal.SIGKILL)
    run.open_gate()
    assert_finished(run)
    found = sizes(run.state)
    assert sum(found.values()) <= 64 << 10
    assert set(found) >= {LogKey(2, 0), LogKey(2, 1)}
    for rank in (0, 1):
        size, lines = found[LogKey(2, rank)], log_path(run.state, LogKey(2, rank)).read_text()
        assert 8 << 10 < size <= 32 << 10
        assert json.loads(lines.partition("\n")[0])["message"] == "cut"
        assert "said where the task is made" in lines
