"""How the first process of a worker ends that has no word of its job's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.worker_config import GangProof, ProofKind
from tests.support.gangs.gang_run import GangRun

UNABLE = """
import sys
from dtjob_trainer import supervisor
from dtjob_trainer.worker.processes import CannotStart

class Worker:
    def terminate(self): ...
    async def run(self): raise CannotStart("killed for want of memory", lasting=True)

sys.exit(supervisor.main(sys.argv[1:], lambda *_: Worker()))
"""

AT_HOME = """
import os, sys
from dtjob_trainer import supervisor

real = os.uname()
os.uname = lambda: os.uname_result((real.sysname, sys.argv[1], *real[2:]))

class Worker:
    def __init__(self, position): self.position = position
    def terminate(self): ...
    async def run(self): return 100 + self.position

sys.exit(supervisor.main(sys.argv[2:], lambda _config, position, _log: Worker(position)))
"""

pytestmark = pytest.mark.processes


def ended(folder: Path, configuration: str) -> tuple[int, dict[str, Any]]:
    """The exit code and last words of one whose ranks can't be started."""
    config = folder / "config.json"
    config.write_text(configuration)
    program = [sys.executable, "-c", UNABLE, "--config", str(config), "--position", "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    last: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return done.returncode, last


def test_one_that_can_start_no_ranks_refuses_and_fails_no_job(tmp_path: Path) -> None:
    code, last = ended(tmp_path, GangRun(tmp_path).config(1).model_dump_json())
    assert code == WorkerExit.HELD
    assert (last["level"], last["reason"]) == ("error", "RanksCannotStart")
    assert last["detail"] == "killed for want of memory"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("faults-0", 100),
        ("faults-w-0", 101),
        ("faults-w-2", 103),
        # Of the coordinator's set, if somebody scales it up: nobody's.
        ("faults-1", WorkerExit.CONFIGURATION),
        ("elsewhere", WorkerExit.CONFIGURATION),
    ],
)
def test_a_pods_host_name_says_which_worker_it_is(host: str, code: int, tmp_path: Path) -> None:
    proof = GangProof(kind=ProofKind.TOKEN, path="/token", audience="gang", stateful_set="faults")
    (tmp_path / "config.json").write_text(
        GangRun(tmp_path).config(0).model_copy(update={"proof": proof}).model_dump_json()
    )
    program = [sys.executable, "-c", AT_HOME, host, "--config", str(tmp_path / "config.json")]
    assert subprocess.run(program, timeout=60, check=False).returncode == code


def test_one_that_can_not_use_its_configuration_says_why(tmp_path: Path) -> None:
    code, last = ended(tmp_path, "{}")
    assert code == WorkerExit.CONFIGURATION
    assert (last["level"], last["reason"]) == ("error", "ConfigurationInvalid")
    assert "job\n  Field required" in last["detail"]
