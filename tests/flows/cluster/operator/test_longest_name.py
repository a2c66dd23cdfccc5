"""A job whose name is as long as it may be: the pods of both StatefulSets come up and train.

Kubernetes puts a set's name into a label of each of its pods, with eleven characters more.
"""

from __future__ import annotations

import pytest

from dtjob_api.job.distributed_training_job import MAX_NAME_LENGTH
from dtjob_api.wire.positions import pod_name
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OperatorProcess, child_name
from tests.support.jobs.played_jobs import Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_both_sets_have_their_pods(
    operator: OperatorProcess, player: Player, namespace: Kubectl
) -> None:
    name = "j" * MAX_NAME_LENGTH
    namespace.apply(played_job(name, player.label, {"secondsPerStep": 0.2}))
    stored = namespace.get("dtjob", name)
    assert stored is not None
    child = child_name(stored)

    def pods() -> list[str] | None:
        found = [each["metadata"]["name"] for each in namespace.list("pods")]
        return sorted(found) if len(found) == 2 else None

    assert wait_for("two pods", pods, 120) == [pod_name(child, 0), pod_name(child, 1)]
    hashes = {
        each["metadata"]["labels"]["controller-revision-hash"].rpartition("-")[0]
        for each in namespace.list("pods")
    }
    assert hashes == {child, f"{child}-w"}
    claims = [each["metadata"]["name"] for each in namespace.list("pvc")]
    assert claims == [f"checkpoints-{pod_name(child, 0)}"]

    def phase() -> str | None:
        found: str | None = (namespace.get("dtjob", name) or {}).get("status", {}).get("phase")
        return found

    wait_for("its end", lambda: phase() == "Succeeded", 180)
    wait_for("its pods are released", lambda: not namespace.list("pods"), 60)
    namespace("delete", "dtjob", name, "--wait=false")
