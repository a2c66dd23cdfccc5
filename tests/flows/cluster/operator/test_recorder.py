"""Events on the real API server: what an operator tells again is one event that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dtjob_operator.decide.status.announcements import announcements
from dtjob_operator.kube.api_server import credentials
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.recorder import Recorder
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def running(step: int, attempt: int) -> dict[str, Any]:
    return {
        "phase": "Running",
        "conditions": [{"type": "Running", "status": "True", "reason": "Training", "message": ""}],
        "progress": {"step": step, "totalSteps": 40},
        "attempts": attempt,
        "workers": {"desired": 2},
    }


def test_a_start_that_is_told_twice_is_one_event(
    installed: Kubectl, namespace: Kubectl, stored_job: Callable[[Manifest], Manifest]
) -> None:
    """As by an operator that was killed before it wrote the status, while the job went on."""
    stored = stored_job(unplaced_job("digits"))

    async def tell() -> None:
        configuration = await credentials(str(installed.kubeconfig))
        cluster = KubeClient(configuration, lambda _verb, _kind, _code: None)
        try:
            for step, attempt in ((0, 1), (7, 1), (20, 2)):
                for emit in announcements({}, running(step, attempt), 2):
                    await Recorder(cluster).record(stored, emit)
        finally:
            await cluster.close()

    asyncio.run(tell())
    events = {
        event["message"]: event["count"]
        for event in namespace.list("events")
        if event["involvedObject"]["uid"] == stored["metadata"]["uid"]
    }
    assert events == {
        "attempt 1 trains from step 0 of 40 with 2 workers": 2,
        "attempt 2 trains from step 20 of 40 with 2 workers": 1,
    }
