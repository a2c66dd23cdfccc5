"""What `dtjob run` says of supervisors that died."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import NO_IMAGE
from dtjob_cli.runs import local_workers
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.process import memory_group
from dtjob_trainer.process.memory_group import MemoryCount
from tests.support.builders import UID, new_job


class Killed(subprocess.Popen[bytes]):
    """A supervisor that is killed at once."""

    def __init__(self, _arguments: list[str], **_options: Any) -> None:
        super().__init__(["/bin/sh", "-c", "kill -9 $$"], start_new_session=True)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kills of the memory group, in the order in which they are asked for; the last one stays."""
    kills: list[int] = []

    def read() -> MemoryCount:
        return MemoryCount(kills.pop(0) if len(kills) > 1 else kills[0], at_limit=0, limit=None)

    monkeypatch.setattr(memory_group, "read", read)
    return kills


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path)
    found.logs.mkdir()
    found.workers.mkdir()
    return found


def workers(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, *, restarts: int
) -> local_workers.Workers:
    class Config:
        http_port = 1

        def model_dump_json(self, **_: Any) -> str:
            return "{}"

    monkeypatch.setattr(subprocess, "Popen", Killed)
    configs: list[Any] = [Config(), Config()]
    return local_workers.Workers(run, configs, environment={}, lock=0, max_restarts=restarts)


def test_two_deaths_at_once_are_both_told_as_out_of_memory(
    run: RunDirectory, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts[:] = [0, 0, 2]
    ends = workers(run, monkeypatch, restarts=0).ends()
    assert ["out of memory" in end.cause for end in ends] == [True, True]


def test_a_restarted_worker_is_judged_by_what_was_counted_since(
    run: RunDirectory, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts[:] = [0, 0, 2]
    found = workers(run, monkeypatch, restarts=2)
    assert all(end.restarted for end in found.ends())
    assert ["kill -9" in end.cause for end in found.ends()] == [True, True]


def test_a_ranks_kill_explains_no_later_death_of_a_worker(
    run: RunDirectory, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own supervisor has told of it, and started the ranks again."""
    counts[:] = [0, 0, 1]
    found = workers(run, monkeypatch, restarts=0)
    request = httpx.Request("GET", "http://127.0.0.1/report")
    said = {"jobUID": "5ac7f6f2", "attempt": 2, "restarts": 1}
    answer = httpx.Response(200, json=said, request=request)
    monkeypatch.setattr(found._http, "get", lambda _: answer)
    found.worker_report()
    assert ["kill -9" in end.cause for end in found.ends()] == [True, True]


def test_the_manifests_image_made_no_draw(run: RunDirectory) -> None:
    manifest = new_job("digits")
    manifest["metadata"]["uid"] = UID
    job = DistributedTrainingJob.model_validate(manifest)
    made = local_workers.configs(run, job, data=None, http_port=20000, count=2)
    assert job.spec.image != NO_IMAGE
    assert [config.job.image for config in made] == [NO_IMAGE, NO_IMAGE]
