"""Applies the digits job in a fresh namespace and follows it as a person would."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from demo.install import ROOT, Cluster, overlay
from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from dtjob_api.wire.worker_report import WorkerReport
from localcluster.base.errors import ClusterError

_RESOURCE = "distributedtrainingjobs.dtjob.dev"
JOB = "digits"


def apply(cluster: Cluster, image: str) -> str:
    """Apply examples/digits.yaml with this image; the name of its new, restricted namespace."""
    namespace = f"dtjob-demo-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    set_image = json.dumps([{"op": "replace", "path": "/spec/image", "value": image}])
    settings = {
        "namespace": namespace,
        "patches": [{"target": {"kind": "DistributedTrainingJob"}, "patch": set_image}],
    }
    with overlay(ROOT / "examples", settings) as folder:
        cluster.kubectl("apply", f"--kustomize={folder}")
    return namespace


def states(cluster: Cluster, namespace: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The job as it is now, again and again, until it has ended.

    Raises
    ------
    ClusterError
        It has not ended in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        job = json.loads(
            cluster.kubectl("get", _RESOURCE, JOB, f"--namespace={namespace}", "--output=json")
        )
        yield job
        if job.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"the job {namespace}/{JOB} has not ended within {seconds:.0f} s")
        time.sleep(0.5)


def report(cluster: Cluster, namespace: str, job: dict[str, Any]) -> WorkerReport | None:
    """The coordinator's own report, through the API server; None while it has none."""
    pod = f"{JOB}-{job['metadata']['uid'][:8]}-0"
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{HTTP_PORT}/proxy{REPORT_PATH}"
    try:
        return WorkerReport.read(json.loads(cluster.kubectl("get", "--raw", path)))
    except (ClusterError, ValueError):
        return None


def condition(job: dict[str, Any]) -> str:
    """What the newest condition that is not fine says, for a line on the screen."""
    conditions = job.get("status", {}).get("conditions", [])
    unhappy = [each for each in conditions if each["status"] == "False" and each.get("message")]
    return f"{unhappy[-1]['reason']}: {unhappy[-1]['message']}" if unhappy else ""
