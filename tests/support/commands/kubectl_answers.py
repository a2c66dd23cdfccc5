"""A kubectl that is a script: what it answers of a job, its pods, and the reader of its claim."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dtjob_cli import reader_pod
from tests.support.builders import UID

JOB: dict[str, Any] = {
    "metadata": {"name": "digits", "namespace": "a", "uid": UID},
    "spec": {
        "image": "registry.test/trainer:1",
        "imagePullSecrets": [{"name": "registry"}],
        "workers": {
            "processesPerWorker": 2,
            "template": {
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
            },
        },
    },
}
CHILD = f"digits-{UID[:8]}"
KUBECTL = """#!/bin/sh
printf "%s\\n" "$*" >> {folder}/calls
case "$*" in
*"get privacyledgers"*) cat {folder}/ledger.json ;;
*"get distributedtrainingjobs"*) cat {folder}/job.json ;;
*"get pod {child}-reader-"*) cat {folder}/reader.json ;;
*"get pod {child}-"*) cat {folder}/pod.json ;;
*"get pod"*) cat {folder}/reader.json ;;
*"get events"*) cat {folder}/events.json ;;
*create*) cat > {folder}/created.json; sh {folder}/create.sh ;;
*delete*) touch {folder}/deleted ;;
*exec*list*) cat {folder}/list.json ;;
*exec*send*) cat {folder}/sent ;;
*logs*) echo "of the pod" ;;
esac
"""
WAITING = {"spec": {"containers": [{"name": "reader", "image": "registry.test/trainer:1"}]}}
RUNNING: dict[str, Any] = {"containerStatuses": [{"state": {"running": {}}}]}


class Answers:
    """What a kubectl answers that is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has("job.json", JOB)
        self.has("list.json", [{"attempt": 1, "rank": 1, "bytes": 5}])
        self.has("events.json", {"items": []})
        self.reader_is(RUNNING)
        (folder / "pod.json").touch()
        (folder / "create.sh").touch()
        (folder / "sent").write_text("kept\n")
        (folder / "kubectl").write_text(KUBECTL.format(folder=folder, child=CHILD))
        (folder / "kubectl").chmod(0o755)

    def has(self, file: str, content: Any) -> None:
        (self.folder / file).write_text(json.dumps(content))

    def reader_is(self, status: dict[str, Any]) -> None:
        self.has("reader.json", WAITING | {"metadata": {"name": "reader"}, "status": status})

    def worker_is(self, status: dict[str, Any], **metadata: str) -> None:
        mounts = [{"name": "checkpoints", "mountPath": "/var/run/dtjob/state"}]
        container = {"name": "worker", "volumeMounts": mounts}
        pod = {"metadata": metadata, "spec": {"containers": [container]}, "status": status}
        self.has("pod.json", pod)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    @property
    def was_deleted(self) -> bool:
        return (self.folder / "deleted").exists()


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """On the PATH; nobody waits for a pod that it says does not start."""
    folder = tmp_path / "kubectl"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(reader_pod, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(reader_pod, "STUCK_SECONDS", 0.0)
    monkeypatch.setattr(reader_pod, "START_SECONDS", 0.0)
    return Answers(folder)
