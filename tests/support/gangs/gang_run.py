"""A gang of real supervisors for tests: started, killed and restarted as a kubelet would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dtjob_api.job.distributed_training_job import Training
from dtjob_api.job.run_policy import Backoff, FailureRule, RunPolicy
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.wire.well_known import REPORT_PATH
from dtjob_api.wire.worker_config import (
    GangProof,
    JobIdentity,
    LedgerKind,
    LedgerRef,
    ProofKind,
    WorkerConfig,
)
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import new_ledger, privacy_plan
from tests.support.checkout import SUPPORT, TASKS
from tests.support.gangs.promised_ports import Promised
from tests.support.gangs.zygote import GANG, Forked

_SUPERVISOR = SUPPORT / "gangs" / "recording_supervisor.py"
_UID = "5ac7f6f2-1111-4222-8333-444455556666"
SLOW = {"entrypoint": "slow_task:task", "args": {"seconds": 0.03}}
# A machine may stand still for a while: what ought to come is waited for this long.
PATIENCE = 240.0


@dataclass(frozen=True)
class Executed:
    """One draw that one rank began to execute, as that rank's recorder wrote it down."""

    attempt: int
    rank: int
    pid: int
    draw: int
    step: int
    mask: str
    noise: str


@dataclass
class GangRun:
    """A run in `folder`: ledger, checkpoint volume, record of draws, logs.

    `gate_at`: ranks that have begun this step, or a later one, stay in it until `open_gate`. So
    what a test does then comes neither too early nor too late, however long it takes.

    `executed_anew`: supervisors are new programs, as in a pod, and not forked by `zygote`.
    """

    folder: Path
    workers: int = 2
    processes_per_worker: int = 1
    steps: int = 60
    lease_steps: int = 5
    reserve: int = 60
    stall_seconds: int = 600
    max_restarts: int = 10
    rules: tuple[FailureRule, ...] = ()
    log_bytes: int = 1 << 20
    stays_after_outcome: bool = False
    task: dict[str, Any] = field(default_factory=lambda: SLOW)
    state: Path | None = None
    data: Path | None = None
    name: str = "a"
    gate_at: int | None = None
    executed_anew: bool = False

    def __post_init__(self) -> None:
        self.ledger = FileLedger(self.folder / "ledger")
        self.record = self.folder / "draws.jsonl"
        self.processes: dict[int, subprocess.Popen[bytes] | Forked] = {}
        self.state = self.state or self.folder / "state"
        self.state.mkdir(exist_ok=True)
        self.ports = Promised(self.workers + 3)  # store, hellos, and one worker may come later
        self.store_port = self.ports.first
        self.hello_port = self.store_port + 1
        self.http_port = self.store_port + 2
        self.secret = self.folder / "gang-secret"
        self.secret.write_bytes(b"a secret of the tests")
        self.gate = self.folder / f"gate-{self.name}"
        if self.gate_at is not None:
            self.gate.write_text(str(self.gate_at))

    @property
    def policy(self) -> RunPolicy:
        """Of the ledger that is made; a test does not wait for an attempt."""
        return RunPolicy(
            max_restarts=self.max_restarts,
            stall_seconds=self.stall_seconds,
            backoff=Backoff(initial_seconds=0, max_seconds=0),
            rules=list(self.rules),
        )

    def create_ledger(self) -> None:
        plan = privacy_plan(
            steps=self.steps, lease_steps=self.lease_steps, replay_reserve_steps=self.reserve
        )
        ledger = new_ledger(
            plan,
            job_name="faults",
            job_uid=_UID,
            workers=self.workers,
            run_policy=self.policy,
        )
        self.ledger.create(ledger)

    def change_policy(self, policy: RunPolicy) -> None:
        """Pass another run policy on, as the operator does."""
        versioned = self.ledger.read()
        changed = versioned.ledger.spec.model_copy(update={"run_policy": PolicyInForce.of(policy)})
        self.ledger.replace_spec(versioned, changed)

    def config(self, position: int) -> WorkerConfig:
        training = {
            "batchSize": 256,
            "steps": self.steps,
            "optimizer": {"name": "sgd", "learningRate": 1.0},
            **self.task,
        }
        return WorkerConfig(
            job=JobIdentity(
                namespace="test", name="faults", uid="5ac7f6f2", image="example.test/trainer:1"
            ),
            training=Training.model_validate(training),
            processes_per_worker=self.processes_per_worker,
            ledger=LedgerRef(kind=LedgerKind.FILE, path=str(self.ledger.path)),
            state_dir=str(self.state),
            data_dir=str(self.data) if self.data else None,
            log_bytes=self.log_bytes,
            coordinator_host="127.0.0.1",
            coordinator_port=self.hello_port,
            store_port=self.store_port,
            proof=GangProof(kind=ProofKind.SECRET, path=str(self.secret)),
            http_port=self.http_port + position,
            stays_after_outcome=self.stays_after_outcome,
        )

    def start(self) -> None:
        for position in range(self.workers):
            self.start_worker(position)

    def start_worker(self, position: int) -> None:
        config = self.folder / f"config-{self.name}-{position}.json"
        config.write_text(self.config(position).model_dump_json())
        program = [str(_SUPERVISOR), str(self.record), str(self.gate)]
        arguments = [*program, "--config", str(config), "--position", str(position)]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(TASKS)}
        if not self.executed_anew:
            self.processes[position] = Forked(GANG, arguments, self.log(position), environment)
            return
        with self.log(position).open("ab") as log:
            self.processes[position] = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )

    def log(self, position: int) -> Path:
        return self.folder / f"worker-{self.name}-{position}.log"

    def kill(self, position: int, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.processes[position]
        process.send_signal(number)
        if number is signal.SIGKILL:
            process.wait(timeout=PATIENCE)

    def open_gate(self) -> None:
        """Let ranks go on."""
        self.gate.unlink()

    def pids(self) -> list[int]:
        """The supervisors that live and every process below them."""
        living = [p.pid for p in self.processes.values() if p.poll() is None]
        return [pid for supervisor in living for pid in with_descendants(supervisor)]

    def executed(self) -> list[Executed]:
        if not self.record.exists():
            return []
        lines = self.record.read_text().splitlines()
        return [Executed(**json.loads(line)) for line in lines]

    def report(self) -> dict[str, Any] | None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.http_port}{REPORT_PATH}", timeout=2)
        except httpx.HTTPError:
            return None
        report: dict[str, Any] = answer.json()
        return report

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.02)
        raise AssertionError(f"no {what} within {seconds} s\n{self.logs()}")

    def wait_for_step(self, step: int, attempt: int = 1) -> list[Executed]:
        """Every rank of an attempt has begun that step."""
        ranks = self.workers * self.processes_per_worker

        def begun() -> list[Executed]:
            last = {e.rank: e for e in self.executed() if e.attempt >= attempt}
            reached = [e for e in last.values() if e.step >= step]
            return reached if len(reached) == ranks else []

        found: list[Executed] = self.wait(f"step {step} of attempt {attempt}", begun)
        return found

    def wait_for_drain(self) -> None:
        """Rank 0 has been told to stop at the next boundary."""
        self.wait("drain", lambda: (self.report() or {}).get("state") == WorkerState.DRAINING)

    def wait_for_exit(self, seconds: float = 300) -> list[int]:
        def ended() -> bool:
            return all(p.poll() is not None for p in self.processes.values())

        self.wait("end of all supervisors", ended, seconds)
        return [self.processes[k].wait(PATIENCE) for k in sorted(self.processes)]

    def logs(self) -> str:
        return "\n".join(
            f"--- worker {k}\n{self.log(k).read_text()[-3000:]}"
            for k in range(self.workers)
            if self.log(k).exists()
        )

    def stop(self) -> None:
        for pid in self.pids():
            _signal(pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait(timeout=PATIENCE)
        self.ports.close()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes that the run started."""
    for pid in pids:
        _signal(pid, number)


def with_descendants(root: int) -> list[int]:
    """A process and all processes below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo.extend(children.get(found[-1], []))
    return found
