"""A whole job, as the trainer's own code writes it, through a real API server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.config import kube_config
from typer.testing import CliRunner

from dtjob_api.ledger.privacy_ledger import MAX_ATTEMPTS_KEPT
from dtjob_api.reasons import Reason
from dtjob_cli.main import app
from dtjob_trainer.gang.attempts import AttemptEnd, end_attempt, record_drained
from dtjob_trainer.ledger.kubernetes_ledger import KubernetesLedger
from dtjob_trainer.ledger.recovery import TrainingHeld
from tests.support.builders import created, new_ledger, tiny_plan
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.ledger_writers import bound_token, grant, workers
from tests.support.ledgers.durability import Job, state_at

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NAME = "digits-0a1b2c3d"
"""Of the ledger that the job of `durability` has."""


def test_every_write_of_a_job_is_taken(
    new_namespace: Callable[[], Kubectl],
    operator_token: str,
    with_token: Callable[[Kubectl, str], Kubectl],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attempts, leases, checkpoints, ends, a drain, a raise, 25 deaths in a row, the outcome.

    The volume is that of a run whose ledger is lost; the new ledger is behind it.
    """
    kubectl = new_namespace()
    workers(kubectl, f"{NAME}-0")
    job = Job(tmp_path / "job", tiny_plan(steps=12, lease_steps=2, reserve=12))
    job.create()
    account, _ = job.opened()
    job.draw(account)
    job.run(stop_after=3)

    manifest = created(new_ledger(job.plan))
    with_token(kubectl, operator_token)("create", "--filename=-", stdin=json.dumps(manifest))
    coordinator = with_token(kubectl, bound_token(kubectl, f"{NAME}-0"))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(coordinator.kubeconfig))
    job.ledger, job.charged = KubernetesLedger(kubectl.namespace, NAME), 0
    with contextlib.suppress(TrainingHeld):
        job.run()
    assert job.read().status.volume is not None

    kubectl("create", "serviceaccount", "rita")
    grant(kubectl, "rita", "dtjob-ledger-restore", kubectl.namespace)
    rita = with_token(kubectl, kubectl("create", "token", "rita").strip())
    with monkeypatch.context() as patched:
        patched.setenv("KUBECONFIG", str(rita.kubeconfig))
        patched.setenv("PATH", str(rita.program.parent), prepend=os.pathsep)
        command = ["ledger", "restore", NAME, f"--namespace={kubectl.namespace}"]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    raised = job.read().status
    assert raised.restored == raised.attempt == 2

    for _ in range(25):
        job.begin()
    stopped = job.read().status.attempt
    end_attempt(job.ledger, stopped, AttemptEnd(Reason.STOPPED), job.clock())
    job.run(stop_after=6)
    attempt = job.read().status.attempt
    end_attempt(job.ledger, attempt, AttemptEnd(Reason.STOPPED), job.clock())
    record_drained(job.ledger, attempt, 1)
    account, step = job.opened()
    job.draw(account)
    account.close(step + 1, state_at(step + 1))
    job.run()
    ended = job.check().status
    assert ended.outcome is not None
    end_attempt(job.ledger, ended.attempt, AttemptEnd(Reason.COMPLETED), job.clock())
    records = job.read().status.attempts
    assert len(records) == MAX_ATTEMPTS_KEPT
    # The last but one closed its lease, and wrote no end.
    assert [record.reason for record in records[-2:]] == [Reason.STOPPED, Reason.COMPLETED]
    assert stopped not in {record.attempt for record in records}, "orderly ends leave first"
