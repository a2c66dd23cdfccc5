"""What is left of a job in pods, as its user fetches it: the logs of its ranks, and the model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from demo.install import ROOT
from dtjob_cli.cluster_jobs import running_container
from dtjob_cli.main import app
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.jobs.pod_jobs import Job

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def job(installed: Installed, new_namespace: Callable[[], Kubectl]) -> Job:
    """A short job of two workers, which runs."""
    manifest: Manifest = YAML(typ="safe").load(ROOT / "examples" / "digits.yaml")
    manifest["spec"]["image"] = installed.worker_image
    manifest["spec"]["training"]["steps"] = 40
    return Job.apply(installed, new_namespace(), manifest)


@pytest.fixture(scope="module")
def said_while_it_ran(job: Job) -> Result:
    """What `dtjob logs --follow` has of worker 1, from its start to the end of its pod."""

    def runs() -> bool:
        return running_container(job.kubectl.get("pod", job.pod_name(1))) is not None

    job.until("worker 1", runs, 300)
    return dtjob(job, "logs", "digits", "--rank=1", "--follow")


@pytest.fixture(scope="module")
def ended(job: Job, said_while_it_ran: Result) -> Job:
    """The same after its end, and without pods."""
    job.until_succeeded()
    wait_for("no pods", lambda: not job.kubectl.list("pods"), 120)
    return job


def dtjob(job: Job, *arguments: str) -> Result:
    kubectl = job.kubectl
    environment = {
        "KUBECONFIG": str(kubectl.kubeconfig),
        "PATH": f"{kubectl.program.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [*arguments, f"--namespace={kubectl.namespace}"]
    return CliRunner().invoke(app, command, env=environment, catch_exceptions=False)


def of_dtjob(printed: str) -> list[Manifest]:
    """The lines that are dtjob's own; those of torch's libraries are none of them."""
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def no_reader_is_left(job: Job) -> None:
    wait_for("the end of the reader", lambda: not job.kubectl.list("pods"), 60)


def test_a_running_workers_log_is_its_pods(said_while_it_ran: Result) -> None:
    assert said_while_it_ran.exit_code == 0, said_while_it_ran.stderr
    found = {line["message"] for line in of_dtjob(said_while_it_ran.stdout)}
    assert {"ready", "ranks started"} <= found


def test_logs_of_a_rank_outlive_its_pod(ended: Job) -> None:
    done = dtjob(ended, "logs", "digits", "--rank=1")
    assert done.exit_code == 0, done.stderr
    first, *_, last = of_dtjob(done.stdout)
    assert (first["message"], first["attempt"], first["rank"]) == ("rank started", 1, 1)
    assert (last["message"], last["reason"]) == ("rank ended", "Finished")
    no_reader_is_left(ended)


def test_a_log_that_is_not_kept_is_named_with_those_that_are(ended: Job) -> None:
    done = dtjob(ended, "logs", "digits", "--attempt=7")
    assert done.exit_code == 2
    assert "error (NoLog): no log of attempt 7 of digits is kept; there are those" in done.stderr
    no_reader_is_left(ended)


def test_the_model_comes_with_the_digest_of_its_ledger(ended: Job, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = dtjob(ended, "result", "digits", f"--output={folder}", "--format=json")
    assert done.exit_code == 0, done.stderr
    record = ended.ledger_status()["checkpoint"]
    model = (folder / "model.pt").read_bytes()
    assert hashlib.sha256(model).hexdigest() == record["sha256"]
    assert json.loads(done.stdout)["sha256"] == record["sha256"]
    assert torch.load(folder / "model.pt", weights_only=True)["step"] == 40
    report = json.loads((folder / "report.json").read_text())
    assert (report["job"], report["state"], report["step"]) == ("digits", "Succeeded", 40)
    no_reader_is_left(ended)


def test_a_quota_that_takes_no_reader_is_named(ended: Job, tmp_path: Path) -> None:
    kubectl = ended.kubectl
    kubectl("create", "quota", "full", "--hard=pods=0")
    wait_for("the quota", lambda: (kubectl.get("quota", "full") or {}).get("status"), 60)
    folder = tmp_path / "out"
    done = dtjob(ended, "result", "digits", f"--output={folder}")
    kubectl("delete", "quota", "full")
    assert done.exit_code == 3
    assert "error (ReaderNotStarted): the pod that reads claim" in done.stderr
    assert "exceeded quota: full" in done.stderr
    assert list(tmp_path.iterdir()) == []
