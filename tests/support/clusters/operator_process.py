"""The operator as a plain process with the rights of its own account."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dtjob_cli.runs import ports
from dtjob_operator import __main__
from tests.support.builders import new_job
from tests.support.checkout import ROOT
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.gangs.zygote import OPERATOR, Forked

OPERATOR_NAMESPACE = "dtjob-system"
BASE = ROOT / "deploy" / "kustomize" / "base"
READY_SECONDS = 180
"""For a start on a machine that is busy with other tests."""


def install(kubectl: Kubectl) -> None:
    """Install everything but the operator's pod."""
    rendered = YAML(typ="safe").load_all(kubectl("kustomize", str(BASE)))
    kubectl.apply(*(each for each in rendered if each["kind"] != "Deployment"))
    for name in ("distributedtrainingjobs.dtjob.dev", "privacyledgers.dtjob.dev"):
        kubectl("wait", "--for=condition=Established", "--timeout=120s", f"crd/{name}")


class OperatorProcess:
    """One run of the operator.

    Parameters
    ----------
    program
        What is executed.
    options
        Of its command line, besides namespace and port.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *options: str,
        program: Path = Path(__main__.__file__),
    ) -> None:
        self.port = ports.free()
        self._log = log
        arguments = [f"--namespace={OPERATOR_NAMESPACE}", f"--port={self.port}", *options]
        environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
        self._process = Forked(OPERATOR, [str(program), *arguments], log, environment)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, and wait for nothing."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(90)

    def wait(self, timeout: float) -> int:
        """The exit code of a process that ends by itself."""
        return self._process.wait(timeout)

    def ready(self) -> str:
        """What /readyz says: `ok`, and of which namespaces not; or what is the matter."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/readyz", timeout=5
            ) as answer:
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            return str(error.read().decode().strip())
        except OSError as error:
            return str(error)

    def wait_until_ready(self) -> None:
        """Wait for /readyz."""

        def look() -> bool:
            assert self.alive, self._log.read_text()
            return self.ready().partition("\n")[0] == "ok"

        wait_for("the operator is ready", look, READY_SECONDS)

    def metrics(self) -> dict[str, float]:
        """/metrics, by sample."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def logs(self) -> list[dict[str, Any]]:
        """The lines of the log; every one of them is JSON.

        A process that is killed may leave a last one without its end, which is left out.
        """
        lines = self._log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def unplaced_job(name: str, **changes: Any) -> Manifest:
    """A job without privacy, so that it is planned at once, whose pods no node takes.

    Keyword arguments replace parts of the spec.
    """
    spec: dict[str, Any] = {
        "image": "example.invalid/trainer:1",
        "workers": {
            "replicas": 2,
            "template": {"nodeSelector": {"dtjob.dev/test": "no-such-node"}},
        },
        "training": {"steps": 40},
        "privacy": {"mode": "Disabled", "datasetSize": 1437},
    }
    return new_job(name, **(spec | changes))


def child_name(stored: Manifest) -> str:
    """The name of a job's children."""
    metadata = stored["metadata"]
    return f"{metadata['name']}-{metadata['uid'][:8]}"
