"""Real signals to real processes: the job ends with the promised steps and a true account.

Each test is named by the failure it causes. The oracle of all: `assert_true_account`.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.ledger.backend import Conflict
from tests.support.gangs.gang_run import PATIENCE, SLOW, GangRun, signal_all, with_descendants
from tests.support.gangs.oracle import assert_finished, assert_true_account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]


def killed_in_step(run: GangRun, step: int) -> None:
    """Nothing of it is left to say anything; its gate stays as it is."""
    victims = run.wait_for_step(step)
    signal_all([*run.pids(), *(e.pid for e in victims)], signal.SIGKILL)
    run.wait_for_exit()


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (3, 1), (2, 2)])
def test_no_failure(start: Any, workers: int, processes: int) -> None:
    anew = processes > 1  # a whole run of new programs, as in pods
    run = start(workers=workers, processes_per_worker=processes, steps=12, executed_anew=anew)
    ledger = assert_finished(run)
    assert ledger.status.charged == 12
    assert {e.rank for e in run.executed()} == set(range(workers * processes))


@pytest.mark.parametrize(
    "rank",
    [
        pytest.param(0, id="coordinator"),
        pytest.param(1, id="follower", marks=pytest.mark.nightly),
    ],
)
def test_rank_is_killed(start: Any, rank: int) -> None:
    run = start(gate_at=8)
    victim = next(e for e in run.wait_for_step(8) if e.rank == rank)
    signal_all([victim.pid], signal.SIGKILL)
    run.open_gate()
    ledger = assert_finished(run)
    assert ledger.status.attempt == 2
    first = ledger.status.attempts[0]
    assert (first.rank, first.signal, first.reason) == (rank, signal.SIGKILL, "RankFailed")


@pytest.mark.parametrize("position", [0, 1])
def test_supervisor_is_killed(start: Any, position: int) -> None:
    run = start(gate_at=8, executed_anew=position == 0)
    run.wait_for_step(8)
    below = with_descendants(run.processes[position].pid)
    run.kill(position)
    run.open_gate()
    run.start_worker(position)
    ledger = assert_finished(run)
    assert ledger.status.attempt == 2
    run.wait("end of orphans", lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


def test_everything_is_killed_at_once(start: Any) -> None:
    run = start(gate_at=8, executed_anew=True)
    run.wait_for_step(8)
    signal_all(run.pids(), signal.SIGKILL)
    run.wait_for_exit()
    run.open_gate()
    run.start()
    ledger = assert_finished(run)
    assert ledger.status.attempt == 2


@pytest.mark.rule(10)
def test_gang_is_stopped_in_order_and_resumed(start: Any) -> None:
    """An orderly stop loses no leased draw, so charged ends at the promised steps."""
    run = start(gate_at=7)
    run.wait_for_step(7)
    for position in range(run.workers):
        run.kill(position, signal.SIGTERM)
    run.wait_for_drain()
    run.open_gate()
    assert run.wait_for_exit() == [0, 0], run.logs()
    stopped = run.ledger.read().ledger.status
    assert stopped.outcome is None
    assert stopped.lease is not None
    assert stopped.checkpoint is not None
    assert (
        stopped.lease.closed_at
        == stopped.checkpoint.step
        == 1 + max(e.step for e in run.executed())
    )
    run.start()
    ledger = assert_finished(run)
    assert ledger.status.charged == run.steps


@pytest.mark.rule(10)
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.nightly)],
)
def test_a_signal_to_all_processes_stops_in_order(start: Any, number: signal.Signals) -> None:
    """As systemd and batch systems send it: it costs no more than one to the supervisors."""
    run = start(gate_at=7, executed_anew=number is signal.SIGINT)
    run.wait_for_step(7)
    signal_all(run.pids(), number)
    run.wait_for_drain()
    run.open_gate()
    assert run.wait_for_exit() == [0, 0], run.logs()
    stopped = run.ledger.read().ledger.status
    assert (stopped.outcome, stopped.attempts[-1].reason) == (None, "Stopped")
    run.start()
    assert assert_finished(run).status.charged == run.steps


@pytest.mark.rule(10)
def test_a_signal_to_all_but_the_supervisors_changes_nothing(start: Any) -> None:
    run = start(gate_at=7)
    run.wait_for_step(7)
    supervisors = {process.pid for process in run.processes.values()}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal_all([pid for pid in run.pids() if pid not in supervisors], number)
    run.open_gate()
    status = assert_finished(run).status
    assert (status.attempt, status.charged) == (1, run.steps)


@pytest.mark.rule(12, 13)
def test_worker_is_stopped_in_the_last_lease(start: Any) -> None:
    """An attempt that charges nothing new gets epsilon too, and writes the result."""
    run = start(steps=8, gate_at=5)
    run.wait_for_step(5)
    run.kill(1, signal.SIGTERM)
    run.wait_for_drain()
    run.open_gate()
    run.processes[1].wait(timeout=PATIENCE)
    assert run.ledger.read().ledger.status.outcome is None
    run.start_worker(1)
    ledger = assert_finished(run)
    assert (ledger.status.attempt, ledger.status.charged) == (2, 8)
    assert ledger.status.outcome is not None
    assert ledger.status.outcome.result is not None
    assert float(ledger.status.outcome.result["epsilonSpent"]) > 0


def test_worker_is_stopped_while_ranks_are_started(start: Any) -> None:
    """A worker that is told to stop before the attempt runs stops the others too, in order."""
    run = start(workers=2, gate_at=0)
    run.wait("attempt", lambda: run.ledger.read().ledger.status.attempt == 1)
    for position in range(run.workers):
        run.kill(position, signal.SIGTERM)
    # Rank 0 may be there to hear of it or not: then the attempt has ended already.
    run.wait("stop", lambda: _is_gone(run, 0) or (run.report() or {}).get("state") in _STOPPING)
    run.open_gate()
    assert run.wait_for_exit() == [0, 0], run.logs()
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"
    run.start()
    assert assert_finished(run).status.charged == run.steps


_STOPPING = {WorkerState.DRAINING, WorkerState.STOPPED}


def _is_gone(run: GangRun, position: int) -> bool:
    return run.processes[position].poll() is not None


@pytest.mark.rule(10, 15)
def test_operator_drains_and_runs_another_size(start: Any) -> None:
    """Drained at a boundary, the next generation has three workers."""
    run = start(gate_at=7)
    run.wait_for_step(7)
    _order(run, generation=2, state="Drain")
    run.wait_for_drain()
    run.open_gate()
    run.wait("drained", lambda: run.ledger.read().ledger.status.drained == 2)
    run.start_worker(2)
    run.workers = 3
    _order(run, generation=3, workers=3, state="Run")
    ledger = assert_finished(run)
    assert ledger.status.charged == run.steps
    last = ledger.status.attempt
    assert {e.rank for e in run.executed() if e.attempt == last} == {0, 1, 2}


def _order(run: GangRun, **order: Any) -> None:
    def once() -> bool:
        versioned = run.ledger.read()
        spec = versioned.ledger.spec
        changed = spec.run.model_validate({**spec.run.to_dict(), **order})
        try:
            run.ledger.replace_spec(versioned, spec.model_copy(update={"run": changed}))
        except Conflict:
            return False
        return True

    run.wait("write of the order", once)


def test_rank_hangs(start: Any) -> None:
    # As short as a manifest may say: importing the task and the dry run count too.
    run = start(stall_seconds=10, gate_at=8)
    victim = next(e for e in run.wait_for_step(8) if e.rank == 1)
    signal_all([victim.pid], signal.SIGSTOP)
    run.open_gate()
    ledger = assert_finished(run)
    assert ledger.status.attempts[victim.attempt - 1].reason == "Stalled"


def test_slow_step_is_no_hang(start: Any) -> None:
    """Passes take longer than stallSeconds, many of the dry run and each of training."""
    task = {"entrypoint": "slow_task:slow_where_many", "args": {"seconds": 1.2, "rows": 16}}
    run = start(workers=1, steps=4, stall_seconds=1, task=task)
    assert assert_finished(run).status.charged == 4


def test_first_step_that_hangs_spends_no_more_than_the_reserve_covers(start: Any) -> None:
    """It is reported, nothing is lost, and the run goes on once a person has acted."""
    run = start(workers=1, steps=20, reserve=5, stall_seconds=5, gate_at=0)
    assert run.wait_for_exit() == [3], run.logs()
    status = run.ledger.read().ledger.status
    assert (status.outcome, status.charged) == (None, 5)
    assert status.attempts[-1].reason == "Stalled"
    assert "the reserve of 5 draws does not cover another lost lease" in run.logs()
    run.open_gate()
    run.start()
    assert assert_finished(run).status.charged == 25


@pytest.mark.rule(12)
def test_reserve_is_spent(start: Any) -> None:
    """Lost leases use up the reserve, the last checkpoint is the result."""
    run = start(steps=40, reserve=5, workers=1, gate_at=6)
    for attempt in (1, 2):
        victims = run.wait_for_step(6, attempt)
        signal_all([e.pid for e in victims], signal.SIGKILL)
        run.wait("next attempt", lambda a=attempt: run.ledger.read().ledger.status.attempt > a)
    run.open_gate()
    assert run.wait_for_exit() == [0], run.logs()
    ledger = assert_true_account(run)
    assert ledger.status.outcome is not None
    assert ledger.status.outcome.reason == "PrivacyBudgetExhausted"
    assert ledger.status.charged == 45
    assert ledger.status.checkpoint is not None
    assert 0 < ledger.status.checkpoint.step < 40


def test_restarts_are_exhausted(start: Any) -> None:
    run = start(workers=1, max_restarts=0, gate_at=3)
    victims = run.wait_for_step(3)
    signal_all([e.pid for e in victims], signal.SIGKILL)
    run.open_gate()
    assert run.wait_for_exit() == [1]
    outcome = assert_true_account(run).status.outcome
    assert outcome is not None
    assert outcome.reason == "RestartsExhausted"
    assert "runPolicy.maxRestarts" in outcome.message


@pytest.mark.rule(10)
@pytest.mark.parametrize("stays_after_outcome", [False, True], ids=["local", "pod"])
def test_stopped_gang_is_superseded_and_woken(
    start: Any, tmp_path: Path, runs: list[GangRun], stays_after_outcome: bool
) -> None:
    """A gang that slept through its successor's start can neither lease nor publish.

    In a pod too it ends, so that it is started again: it may be the one that has to go on.
    """
    old = start(workers=1, stays_after_outcome=stays_after_outcome, gate_at=8)
    old.wait_for_step(8)
    asleep = old.pids()
    signal_all(asleep, signal.SIGSTOP)
    old.open_gate()
    new = GangRun(tmp_path, workers=1, name="b", gate_at=20)
    runs.append(new)
    new.start()
    new.wait_for_step(20, attempt=2)
    signal_all(asleep, signal.SIGCONT)
    assert old.wait_for_exit() == [4], old.logs()
    new.open_gate()
    ledger = assert_finished(new)
    assert ledger.status.attempt == 2
    leases = [
        json.loads(v.read_text())["status"].get("lease", {})
        for v in sorted(new.ledger.path.glob("*.json"))
    ]
    attempts = [lease["attempt"] for lease in leases if lease]
    assert attempts == sorted(attempts), "the old gang leased after the new one"


@pytest.mark.rule(20, 21)
@pytest.mark.parametrize(
    ("entrypoint", "reason", "message"),
    [
        ("no_such_module:task", "EntrypointInvalid", "no_such_module"),
        ("slow_task:raises_in_dry_run", "DryRunFailed", "shapes do not fit"),
        ("slow_task:raises_in_evaluation", "EvaluationInvalid", "no public data here"),
        ("slow_task:with_batch_norm", "ModelRefused", "BatchNorm"),
        ("slow_task:with_mean_loss", "TaskInvalid", "losses"),
        (
            "slow_task:with_extra_state",
            "ModelRefused",
            "state_dict() of the model has _extra_state",
        ),
        (
            "slow_task:with_a_private_mean",
            "ModelRefused",
            "Task.dataset() changes mean of the model",
        ),
        ("slow_task:with_lock", "TaskInvalid", "attribute lock (a lock) of module model"),
        ("slow_task:with_panic", "TaskFailed", "raised Panic ("),
        ("slow_task:with_tuples", "DatasetInvalid", "it is a tuple; [i] has to give"),
        ("slow_task:raises_on_private_data", "TaskFailed", "opening the data raised ValueError"),
        ("slow_task:raises_once_its_data_are_open", "TaskFailed", "training raised ValueError"),
    ],
)
def test_task_can_not_work(start: Any, entrypoint: str, reason: str, message: str) -> None:
    """A permanent failure is the outcome, before any draw is charged."""
    run = start(workers=1, task={"entrypoint": entrypoint})
    assert run.wait_for_exit() == [1], run.logs()
    status = run.ledger.read().ledger.status
    assert status.outcome is not None
    assert (status.outcome.reason, status.charged) == (reason, 0), status.outcome
    assert message in status.outcome.message
    written = run.logs() + run.ledger.read().ledger.model_dump_json()
    assert "JANE DOE" not in written
    assert "Traceback" not in run.logs() or reason in ("DryRunFailed", "EvaluationInvalid")


@pytest.mark.rule(20)
def test_private_data_are_opened_in_dataset_and_not_before(start: Any, tmp_path: Path) -> None:
    """Before, the words of an error leave the pod, and numpy's quote a record."""
    (tmp_path / "people.csv").write_text("JANE DOE, 555-0100\n")
    too_early = {"entrypoint": "slow_task:reads_too_early", "args": {"data": str(tmp_path)}}
    run = start(workers=1, task=too_early, data=tmp_path)
    assert run.wait_for_exit() == [1], run.logs()
    status = run.ledger.read().ledger.status
    assert status.outcome is not None
    assert (status.outcome.reason, status.charged) == ("EntrypointInvalid", 0)
    assert "before dataset() is called" in status.outcome.message
    assert "JANE DOE" not in run.logs() + run.ledger.read().ledger.model_dump_json()


def test_a_set_has_one_order_in_every_process_and_attempt_of_a_job(
    start: Any, tmp_path: Path
) -> None:
    """A vocabulary that is made from one would name other words after a restart."""
    orders = tmp_path / "orders"
    task = {"entrypoint": "slow_task:with_a_set_of_words", "args": {"orders": str(orders)}}
    run = start(task=task, gate_at=3, executed_anew=True)
    victim = next(e for e in run.wait_for_step(3) if e.rank == 1)
    signal_all([victim.pid], signal.SIGKILL)
    run.open_gate()
    assert_finished(run)
    read = orders.read_text().splitlines()
    assert len(read) == 4
    assert len(set(read)) == 1


def test_what_a_start_finds_wrong_holds_a_run_that_has_charged_draws(start: Any) -> None:
    """Nothing is lost and no restart counted: put right, the run goes on and ends."""
    run = start(workers=1, steps=20, max_restarts=1, gate_at=8)
    killed_in_step(run, 8)
    run.open_gate()
    charged = run.ledger.read().ledger.status.charged
    for entrypoint, reason, message in (
        ("no_such_module:task", "EntrypointInvalid", "no module named 'no_such_module'"),
        ("slow_task:with_another_model", "CheckpointMismatch", "the model has no weight"),
        ("slow_task:without_its_data", "TaskFailed", "is the data where the task looks for it"),
    ):
        run.task = {"entrypoint": entrypoint}
        run.start()
        assert run.wait_for_exit() == [3], run.logs()
        status = run.ledger.read().ledger.status
        assert (status.outcome, status.charged) == (None, charged)
        assert status.attempts[-1].reason == reason
        assert message in str(status.attempts[-1].message)
    run.task = SLOW
    run.start()
    assert assert_finished(run).status.attempt == 5


def test_volume_that_can_not_be_used_holds_a_run_until_it_can(start: Any) -> None:
    """Before: one restart after the other, until the job had failed for it."""
    run = start(workers=1, steps=10, max_restarts=1, gate_at=0)
    killed_in_step(run, 0)
    run.open_gate()
    charged = run.ledger.read().ledger.status.charged
    in_the_way = run.state / "attempt-2"  # no folder, as a volume that is mounted read-only
    in_the_way.touch()
    for _ in range(3):
        run.start()
        assert run.wait_for_exit() == [3], run.logs()
        status = run.ledger.read().ledger.status
        assert (status.outcome, status.charged) == (None, charged)
        assert status.attempts[-1].reason == "StorageUnusable"
    in_the_way.unlink()
    run.start()
    outcome = assert_finished(run).status.outcome
    assert outcome is not None
    assert outcome.state == "Succeeded"


@pytest.mark.rule(11)
def test_a_ledger_put_back_without_its_status_is_reported_before_the_tasks_faults(
    start: Any,
) -> None:
    """An outcome could never be taken back, and would say that nothing was spent."""
    run = start(workers=2, steps=20, gate_at=8)
    killed_in_step(run, 8)
    shutil.rmtree(run.ledger.path)
    run.create_ledger()
    run.task = {"entrypoint": "no_such_module:task"}
    run.start()
    assert run.wait_for_exit() == [3, 3], run.logs()
    status = run.ledger.read().ledger.status
    assert status.outcome is None
    assert status.attempts[-1].reason == "PrivacyStateLost"


@pytest.mark.rule(20)
def test_rows_that_no_memory_holds_are_refused_before_they_are_tried(start: Any) -> None:
    task = {"entrypoint": "dtjob_trainer.tasks.digits:task", "physicalBatchSize": 10**12}
    run = start(workers=1, task=task)
    assert run.wait_for_exit() == [1], run.logs()
    status = run.ledger.read().ledger.status
    assert status.outcome is not None
    assert (status.outcome.reason, status.charged) == ("DryRunFailed", 0), status.outcome
    assert "the per-example gradients of 1000000000000 rows" in status.outcome.message
    assert "spec.training.physicalBatchSize" in status.outcome.message


def test_interface_that_workers_lack_is_reported_before_the_ranks_meet(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gloo's own error is that of a lost peer on all others, and would be tried again."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    run = start(workers=2)
    assert 0 not in run.wait_for_exit(), run.logs()
    status = run.ledger.read().ledger.status
    assert (status.attempt, status.charged) == (1, 0), "it is not tried again"
    message = status.attempts[-1].message
    assert message is not None
    assert "GLOO_SOCKET_IFNAME is 'nosuch0'" in message
    assert "the interfaces of this worker are" in message
    assert run.executed() == []


@pytest.mark.parametrize("port", ["http_port", "store_port"])
def test_port_is_in_use(tmp_path: Path, runs: list[GangRun], port: str) -> None:
    run = GangRun(tmp_path, workers=1)
    runs.append(run)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        setattr(run, port, other.getsockname()[1])
        run.create_ledger()
        run.start()
        assert run.wait_for_exit() == [2]
    last = json.loads(run.log(0).read_text().splitlines()[-1])
    assert str(getattr(run, port)) in last["detail"]
