"""Real pods are measured, and autoscalers act on what they use and on a metric of no object."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clusters.external_metrics import ExternalMetrics
from tests.support.clusters.kube import Kubectl, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.pods,
    pytest.mark.local_cluster,
    pytest.mark.timeout(300),
]

BUSY = "while True: pass"
IDLE = "import time; time.sleep(3600)"
CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}
WAITING = {
    "type": "External",
    "external": {
        "metric": {"name": "waiting"},
        "target": {"type": "AverageValue", "averageValue": "10"},
    },
}


def deployed(kubectl: Kubectl, image: str, program: str, metric: dict[str, Any]) -> None:
    """A Deployment `web` of one pod, and its autoscaler."""
    labels = {"app": "web"}
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", program],
        "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "150m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    at_once = {"stabilizationWindowSeconds": 0}
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "maxReplicas": 3,
                "metrics": [metric],
                "behavior": {"scaleUp": at_once, "scaleDown": at_once},
            },
        },
    )


def replicas(kubectl: Kubectl, number: int) -> Callable[[], bool]:
    """Whether the Deployment is to have that number."""

    def look() -> bool:
        found = kubectl.get("deployment", "web")
        return found is not None and found["spec"]["replicas"] == number

    return look


@pytest.mark.usefixtures("metrics")
def test_a_busy_pod_is_measured_and_gets_others_beside_it(
    namespace: Kubectl, python_image: str
) -> None:
    deployed(namespace, python_image, BUSY, CPU)
    wait_for("the autoscaler adds pods", replicas(namespace, 3), 90)
    (name, *_) = sorted(
        (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"])
        for pod in namespace.list("pods")
    )
    shown = namespace("top", "pod", name[1], "--no-headers")
    found = re.search(r"\s(\d+)m\s+(\d+)Mi", shown)
    assert found, shown
    assert 75 < int(found[1]) <= 200  # of 150, which it may have
    assert int(found[2]) > 0


def test_a_queue_adds_pods_and_takes_them_away(
    namespace: Kubectl, python_image: str, external_metrics: ExternalMetrics
) -> None:
    external_metrics.values["waiting"] = "25"
    deployed(namespace, python_image, IDLE, WAITING)
    wait_for("one pod for ten that wait", replicas(namespace, 3), 60)
    external_metrics.values["waiting"] = "9"
    wait_for("one is enough", replicas(namespace, 1), 60)
