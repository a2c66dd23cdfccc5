"""A job that an autoscaler makes larger: by the CPU of its real pods, and real metrics."""

from __future__ import annotations

import json

import pytest

from tests.support.builders import new_job
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.jobs.pod_jobs import Job

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.pods,
    pytest.mark.local_cluster,
    pytest.mark.timeout(900),
]

AUTOSCALING = {
    "maxReplicas": 2,
    "metrics": [
        {
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50},
            },
        }
    ],
    "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}},
}


@pytest.mark.usefixtures("metrics")
def test_a_job_that_is_busy_gets_another_worker(installed: Installed, namespace: Kubectl) -> None:
    """No field of it is written but by who owns it: the autoscaler owns the number of workers."""
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    manifest = new_job(
        "busy",
        image=installed.worker_image,
        training={"steps": 20_000},
        workers={"resources": resources},
        autoscaling=AUTOSCALING,
    )
    job = Job.apply(installed, namespace, manifest)
    job.until("one worker trains", lambda: job.ledger_status().get("charged"), 240)
    assert job.ledger_status()["attempts"][0]["workers"] == 1

    def has_grown() -> bool:
        status = job.ledger_status()
        last = status["attempts"][-1]
        return bool(last["workers"] == 2 and status["lease"]["attempt"] == last["attempt"])

    job.until("two train", has_grown, 300)
    shown = namespace("get", "hpa")
    assert "DistributedTrainingJob/" in shown
    assert "%/50%" in shown
    text = json.dumps(manifest)
    assert namespace("diff", "--filename=-", stdin=text) == ""
    how = ("--server-side", "--dry-run=server", "--output=json")
    again = json.loads(namespace("apply", *how, "--filename=-", stdin=text))
    assert again["spec"] == job.stored()["spec"]
    assert again["spec"]["workers"]["replicas"] == 2
    top = ("top", "pods", "--no-headers")
    job.until("both are measured", lambda: len(namespace(*top).splitlines()) == 2, 60)
    namespace("delete", "dtjob", job.name)
    wait_for(
        "nothing is left", lambda: not namespace.list("pods") and not namespace.list("hpa"), 120
    )
