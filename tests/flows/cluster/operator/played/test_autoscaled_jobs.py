"""Jobs that an autoscaler makes larger and smaller by a metric of no object; workers are played."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clusters.external_metrics import ExternalMetrics
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster, pytest.mark.timeout(300)]

STEPS = 400
AUTOSCALING = {
    "minReplicas": 1,
    "maxReplicas": 4,
    "metrics": [
        {
            "type": "External",
            "external": {
                "metric": {"name": "waiting"},
                "target": {"type": "AverageValue", "averageValue": "10"},
            },
        }
    ],
    "behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0},
        "scaleDown": {"stabilizationWindowSeconds": 0},
    },
}


def test_a_queue_makes_a_gang_larger_and_smaller(
    operator: OperatorProcess,
    player: Player,
    new_namespace: Callable[[], Kubectl],
    external_metrics: ExternalMetrics,
) -> None:
    """Noise and draws are what they would have been with any number of workers."""
    external_metrics.values["waiting"] = "25"
    manifest = played_job(
        "digits",
        player.label,
        {"secondsPerStep": 0.15},
        checkpoint={"everySteps": 5},
        autoscaling=AUTOSCALING,
    )
    del manifest["spec"]["workers"]["replicas"]
    manifest["spec"]["training"]["steps"] = STEPS
    job = Played(new_namespace(), player, manifest)

    def has(workers: int) -> Callable[[], bool]:
        def look() -> bool:
            status = job.ledger_status()
            attempts, lease = status.get("attempts", []), status.get("lease", {})
            last = attempts[-1] if attempts else {}
            return last.get("workers") == workers and lease.get("attempt") == last["attempt"]

        return look

    job.until("three workers train", has(3))
    external_metrics.values["waiting"] = "9"
    job.until("one worker trains", has(1))
    job.until("pods that are too many are gone", lambda: job.pods() == {0})
    job.edit({"suspend": True})
    job.until_phase("Suspended")
    assert not job.kubectl.list("hpa")
    external_metrics.values["waiting"] = "15"
    job.edit({"suspend": False})
    job.until("two workers train", has(2))
    job.until_phase("Succeeded")
    account = job.ledger_status()
    assert account["charged"] == STEPS
    assert sorted(job.draws()) == list(range(STEPS))
