"""Plays the operator and the kubelet on one machine: starts supervisors, watches and stops them.

Nothing here prints. Workers are started from the main thread only: each asks the kernel for a
SIGTERM when the thread that started it ends, so they stop in order even if this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from dtjob_api.derive import worker_config
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import NO_IMAGE
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.well_known import REPORT_PATH
from dtjob_api.wire.worker_config import GangProof, LedgerKind, LedgerRef, ProofKind, WorkerConfig
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_cli.runs import ports, run_directory
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.process import memory_group
from dtjob_trainer.worker import deaths

CLOSE_SECONDS = 10.0
CLOSE_POLL_SECONDS = 0.05
_VERDICTS = frozenset(WorkerExit)


def configs(
    run: RunDirectory,
    job: DistributedTrainingJob,
    *,
    data: Path | None,
    http_port: int,
    count: int,
) -> list[WorkerConfig]:
    """Return the configuration of each position's supervisor: equal but for its own HTTP port.

    They know one another by a new secret of the run.
    """
    run_directory.new_secret(run)
    gang_port = ports.free(2, apart_from=range(http_port, http_port + count))
    first = worker_config(
        job,
        ledger=LedgerRef(kind=LedgerKind.FILE, path=str(run.ledger.absolute())),
        state_dir=str(run.state.absolute()),
        data_dir=str(data.absolute()) if data else None,
        coordinator_host="127.0.0.1",
        coordinator_port=gang_port,
        store_port=gang_port + 1,
        proof=GangProof(kind=ProofKind.SECRET, path=str(run.secret.absolute())),
        http_port=http_port,
        stays_after_outcome=False,
    )
    first = first.model_copy(
        update={"job": first.job.model_copy(update={"image": NO_IMAGE})}  # theirs has not run
    )
    return [
        first.model_copy(update={"http_port": http_port + position}) for position in range(count)
    ]


def environment(job: DistributedTrainingJob, workers: int) -> dict[str, str]:
    """Return the environment of the workers: this process's, and the literals of the manifest.

    All workers share this machine's cores, so each rank gets its part of them; two ranks with a
    thread for every core hinder one another.
    """
    given = {var.name: var.value for var in job.spec.workers.template.env if var.value is not None}
    ranks = workers * job.spec.workers.ranks_per_worker
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **given}


@dataclass(frozen=True)
class End:
    """The end of one supervisor process.

    Attributes
    ----------
    position
        Whose.
    code
        Its exit code; negative: the signal that ended it.
    reason, message
        Of the last error in its log; empty without one.
    restarted
        Whether a new process has taken its place.
    cause
        What most likely ended it, if it was a signal.
    """

    position: int
    code: int
    reason: str
    message: str
    restarted: bool
    cause: str = ""

    @property
    def how(self) -> str:
        """Return `exit code 3` or `SIGKILL`."""
        return f"exit code {self.code}" if self.code >= 0 else deaths.name_of(-self.code)


class Workers:
    """The supervisors of a run.

    Parameters
    ----------
    run
        Where configurations and logs go.
    configs
        One for each position, in order.
    environment
        Of every supervisor.
    lock
        A file descriptor that every supervisor inherits (see `run_directory.locked`).
    max_restarts
        How many deaths of supervisors are answered by a new process.
    """

    def __init__(
        self,
        run: RunDirectory,
        configs: list[WorkerConfig],
        *,
        environment: Mapping[str, str],
        lock: int,
        max_restarts: int,
    ) -> None:
        self._run = run
        self._environment = environment
        self._lock = lock
        self._restarts_left = max_restarts
        self._stopping = False
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{configs[0].http_port}", timeout=2.0, trust_env=False
        )
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logged: dict[int, int] = {}
        self._restarts = 0
        self._memory_kills = deaths.MemoryKills()
        for position, config in enumerate(configs):
            text = config.model_dump_json(by_alias=True, indent=2)
            with run_directory.naming(self._config(position)):
                self._config(position).write_text(text, encoding="utf-8")
            self._start(position)

    @property
    def running(self) -> bool:
        """Whether any supervisor is there."""
        return bool(self._processes)

    def ends(self) -> list[End]:
        """Return the supervisors that have ended since the last call.

        One that died without a verdict is started anew, as a kubelet would.
        """
        found = []
        for position, process in list(self._processes.items()):
            if not _has_ended(process.pid):
                continue
            # Before it is reaped, so that its number is still its own: what it started must
            # leave its ports to the next.
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            del self._processes[position]
            cause = self._cause(position, code)
            reason, message = last_error(self._log(position), self._logged[position])
            again = code not in _VERDICTS and not self._stopping and self._restarts_left > 0
            if again:
                self._restarts_left -= 1
                self._start(position)
            found.append(End(position, code, reason, message, restarted=again, cause=cause))
        return found

    def _cause(self, position: int, code: int) -> str:
        if code >= 0 or self._stopping:
            return ""
        return self._memory_kills.cause(position, -code, memory_group.read())

    def worker_report(self) -> WorkerReport | None:
        """Return the coordinator's report, or None while it has none to give."""
        try:
            answer = self._http.get(REPORT_PATH)
            report = WorkerReport.read(answer.raise_for_status().json())
        except (httpx.HTTPError, ValueError):
            return None
        if report is None:
            return None
        if report.restarts > self._restarts:
            # Kills of ranks were told with the end of their attempt.
            self._memory_kills.explained(memory_group.read())
        self._restarts = report.restarts
        return report

    def stop(self) -> None:
        """Ask all to stop at the next step boundary, with a checkpoint (rule 10)."""
        self._stopping = True
        for process in self._processes.values():
            os.kill(process.pid, signal.SIGTERM)  # not yet reaped: its number is its own

    def kill(self) -> None:
        """End all at once, with the ranks that they started."""
        self._stopping = True
        for process in self._processes.values():
            os.killpg(process.pid, signal.SIGKILL)  # each leads a session of its own

    def close(self) -> None:
        """Stop who is left, wait a while, and kill who does not leave."""
        if self._processes:
            self.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        while time.monotonic() < deadline and not all(
            _has_ended(process.pid) for process in self._processes.values()
        ):
            time.sleep(CLOSE_POLL_SECONDS)
        self.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        self._http.close()

    def _config(self, position: int) -> Path:
        return self._run.workers / f"worker-{position}.json"

    def _log(self, position: int) -> Path:
        return self._run.logs / f"worker-{position}.jsonl"

    def _start(self, position: int) -> None:
        self._memory_kills.started(position, memory_group.read())
        with self._log(position).open("ab") as log:
            self._logged[position] = log.tell()
            self._processes[position] = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # the task's folder is for its rank, which imports no library from it
                    "-m",
                    "dtjob_trainer.supervisor",
                    "--config",
                    str(self._config(position)),
                    "--position",
                    str(position),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the command alone
                pass_fds=(self._lock,),
            )


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def last_error(log: Path, start: int) -> tuple[str, str]:
    """Return reason and message of the last error in `log` from byte `start` on.

    What is no structured line there, such as the interpreter's own words, counts as a message if
    no structured error follows it.
    """
    with log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode(errors="replace").splitlines()
    last_line = ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            last_line = last_line or line.strip()
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "critical"}:
            detail = entry.get("detail") or entry.get("message") or ""
            return str(entry.get("reason") or ""), str(detail)
    return "", last_line
