"""Jobs whose workers are stand-ins, played by one process beside the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.builders import new_job
from tests.support.checkout import TOOLS
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import wait_for

START_SECONDS = 60


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
