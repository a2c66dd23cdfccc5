"""Jobs whose workers are stand-ins, played by one process beside the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtjob_api.wire import positions
from tests.support.builders import new_job
from tests.support.checkout import TOOLS
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import child_name

START_SECONDS = 60
PATIENCE = 120


def played_job(name: str, label: str, script: dict[str, Any], **changes: Any) -> Manifest:
    """A private job of two stand-ins; `changes` replace parts of its spec."""
    here = {"nodeSelector": {"dtjob.dev/standin": label}}
    training = {"entrypoint": "standin.script:task", "args": script, "steps": 40}
    spec = {"workers": {"replicas": 2, "template": here}, "training": training}
    return new_job(name, **(spec | changes))


@dataclass
class Player:
    """The process that plays the pods."""

    label: str
    folder: Path
    kubeconfig: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output = self.folder / "player.log"
        argv = [sys.executable, "-m", "standin.play", "--kubeconfig", str(self.kubeconfig)]
        with self._output.open("wb") as stream:
            self._process = subprocess.Popen(
                [*argv, "--label", self.label, "--folder", str(self.folder)],
                env=os.environ | {"PYTHONPATH": str(TOOLS)},
                stdout=stream,
                stderr=stream,
            )
        wait_for("the player", self._ready, START_SECONDS)

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.output()
        return "ready" in self.output()

    def output(self) -> str:
        """What the process itself wrote."""
        return self._output.read_text()

    def log(self, namespace: str, pod: str) -> str:
        """The log of a pod's worker, of all its containers one after the other."""
        file = self.folder / "logs" / f"{namespace}.{pod}.log"
        return file.read_text() if file.exists() else ""

    def stop(self) -> None:
        """End it; its Nodes go with it."""
        self._process.terminate()
        self._process.wait(30)


class Played:
    """A job that was just applied, and what is to be seen of it."""

    def __init__(self, kubectl: Kubectl, player: Player, job: Manifest) -> None:
        self.kubectl, self.player = kubectl, player
        self.name = job["metadata"]["name"]
        kubectl.apply(job)
        stored = kubectl.get("dtjob", self.name)
        assert stored is not None
        self.child = child_name(stored)

    def status(self) -> Manifest:
        found: Manifest = (self.kubectl.get("dtjob", self.name) or {}).get("status", {})
        return found

    def condition(self, kind: str) -> Manifest:
        conditions = self.status().get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def until(self, what: str, look: Any, timeout: float = PATIENCE) -> Any:
        try:
            return wait_for(what, look, timeout)
        except AssertionError as error:
            logs = [self.player.log(self.kubectl.namespace, self.pod(each)) for each in range(4)]
            words = [self.player.output(), *logs, self.kubectl("describe", "dtjob,pods")]
            raise AssertionError("\n".join([str(error), *words])) from None

    def until_phase(self, phase: str, timeout: float = PATIENCE) -> None:
        self.until(phase, lambda: self.status().get("phase") == phase, timeout)

    def pod(self, position: int) -> str:
        return positions.pod_name(self.child, position)

    def ledger(self) -> Manifest:
        return self.kubectl.get("privacyledger", self.child) or {}

    def ledger_status(self) -> Manifest:
        status: Manifest = self.ledger().get("status", {})
        return status

    def edit(self, spec: dict[str, Any]) -> None:
        """Merge a patch into the spec."""
        patch = f"--patch={json.dumps({'spec': spec})}"
        self.kubectl("patch", "dtjob", self.name, "--type=merge", patch)

    def pods(self) -> set[int]:
        """Positions of the pods that there are."""
        names = {pod["metadata"]["name"] for pod in self.kubectl.list("pods")}
        found = {positions.position_of(self.child, name) for name in names}
        return {each for each in found if each is not None}

    def draws(self) -> list[int]:
        """The draws that the coordinator was handed, of all attempts."""
        claim = self.kubectl.get("pvc", f"checkpoints-{self.pod(0)}")
        assert claim is not None
        file = self.player.folder / "claims" / claim["metadata"]["uid"] / "draws.jsonl"
        return [json.loads(line)["draw"] for line in file.read_text().splitlines()]

    def events(self) -> list[str]:
        """Reasons of the job's events, the first first."""
        about = f"--field-selector=involvedObject.name={self.name}"
        found = json.loads(self.kubectl("get", "events", about, "--output=json"))["items"]
        found.sort(key=lambda each: each["metadata"]["creationTimestamp"])
        return [each["reason"] for each in found]
