"""The pod that reads a claim: what it may do, what keeps it from starting, and that it goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dtjob_api.ledger.privacy_ledger import LedgerStatus
from dtjob_cli import reader_pod
from dtjob_cli.cluster_jobs import ClusterJob
from dtjob_cli.main import app
from tests.support.builders import UID, new_ledger
from tests.support.commands.kubectl_answers import CHILD, JOB, RUNNING, Answers
from tests.support.commands.stored_runs import PLAN


def logs(*options: str) -> Result:
    return CliRunner().invoke(app, ["logs", "digits", "--namespace=a", *options])


def test_it_has_the_jobs_image_and_nothing_by_which_it_could_act_or_be_taken_for_a_worker() -> None:
    job = ClusterJob("digits", "a", UID, CHILD, JOB["spec"])
    pod = reader_pod.manifest(job, "reader")
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert not any(label.startswith("dtjob.dev/") for label in pod["metadata"]["labels"])
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] != "dtjob"
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] == reader_pod.DEADLINE_SECONDS
    assert spec["restartPolicy"] == "Never"
    claim = {"claimName": f"checkpoints-{CHILD}-0", "readOnly": True}
    assert spec["volumes"] == [{"name": "state", "persistentVolumeClaim": claim}]
    assert container["volumeMounts"] == [
        {"name": "state", "mountPath": reader_pod.MOUNT, "readOnly": True}
    ]
    assert container["image"] == "registry.test/trainer:1"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert not {"env", "envFrom"} & container.keys()
    assert "serviceAccountName" not in spec


def test_a_log_of_a_job_without_pods_is_read_by_it_and_it_is_deleted(answers: Answers) -> None:
    done = logs("--rank=1")
    assert (done.exit_code, done.stdout) == (0, "kept\n")
    assert any(call.endswith("send /state logs/1/rank-1.log") for call in answers.calls)
    assert answers.was_deleted


def test_of_a_worker_that_runs_it_is_the_pods_log(answers: Answers) -> None:
    answers.worker_is(RUNNING)
    done = logs("--rank=3", "--follow")
    assert (done.exit_code, done.stdout) == (0, "of the pod\n")
    assert answers.calls[-1] == f"-n a logs {CHILD}-w-0 --container=worker --follow"


def test_what_is_kept_of_a_job_that_runs_is_read_by_its_coordinator(answers: Answers) -> None:
    answers.worker_is(RUNNING)
    done = logs("--rank=1", "--attempt=1")
    assert (done.exit_code, done.stdout) == (0, "kept\n")
    assert f"exec {CHILD}-0 --container=worker -- python" in answers.calls[-1]
    assert answers.calls[-1].endswith("send /var/run/dtjob/state logs/1/rank-1.log")
    assert not (answers.folder / "created.json").exists()


def test_a_worker_on_its_way_out_is_not_asked(answers: Answers) -> None:
    answers.worker_is(RUNNING, deletionTimestamp="2026-01-01T00:00:00Z")
    assert logs("--rank=1").stdout == "kept\n"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: taints"}
                ]
            },
            "no node takes it: 0/3 nodes: taints",
            id="node",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
                ]
            },
            "image registry.test/trainer:1: ErrImagePull: not found",
            id="image",
        ),
        pytest.param(
            {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "FailedAttachVolume: it is attached elsewhere",
            id="volume",
        ),
        pytest.param({"phase": "Failed"}, "FailedAttachVolume", id="ended"),
    ],
)
def test_what_keeps_it_from_starting_is_named_and_it_is_deleted(
    answers: Answers, status: dict[str, Any], words: str
) -> None:
    answers.reader_is(status)
    event = {"reason": "FailedAttachVolume", "message": "it is attached elsewhere"}
    answers.has("events.json", {"items": [{"type": "Normal"}, event | {"type": "Warning"}]})
    done = logs()
    assert done.exit_code == 3
    assert "error (ReaderNotStarted): pod " in done.stderr
    assert words in done.stderr
    assert answers.was_deleted


def test_a_refusal_is_in_the_words_of_the_api_server(answers: Answers) -> None:
    (answers.folder / "create.sh").write_text("echo 'exceeded quota: small' >&2; exit 1")
    done = logs()
    assert done.exit_code == 3
    assert "was refused: exceeded quota: small" in done.stderr
    assert answers.was_deleted


def test_ctrl_c_while_it_is_made_deletes_it_all_the_same(answers: Answers) -> None:
    (answers.folder / "create.sh").write_text(f"kill -INT {os.getpid()}")
    before = signal.getsignal(signal.SIGINT)
    done = logs()
    assert (done.exit_code, "stopped: nothing was read." in done.stderr) == (130, True)
    assert answers.was_deleted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_job_that_has_not_ended_has_no_result_and_no_pod_is_made_for_it(
    answers: Answers, tmp_path: Path
) -> None:
    ledger = new_ledger(PLAN, job_name="digits", job_uid=UID, workers=2)
    assert ledger.status == LedgerStatus()
    answers.has("ledger.json", ledger.to_dict())
    folder = tmp_path / "out"
    done = CliRunner().invoke(app, ["result", "digits", "-n", "a", "-o", str(folder)])
    assert done.exit_code == 3
    assert "error (NoResult): job digits has not ended." in done.stderr
    assert not folder.exists()
    assert not (answers.folder / "created.json").exists()
