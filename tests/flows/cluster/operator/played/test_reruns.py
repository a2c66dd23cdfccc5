"""Jobs that are done again, and jobs that are not, since they are done already; played workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dtjob_api.derive import child_name
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.kube import Kubectl, wait_until_gone
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CHILDREN = ("statefulsets", "services", "networkpolicies", "poddisruptionbudgets", "hpa")
AUTOSCALING: dict[str, Any] = {
    "maxReplicas": 2,
    "metrics": [
        {
            "type": "Resource",
            "resource": {
                "name": "memory",
                "target": {"type": "AverageValue", "averageValue": "1500Mi"},
            },
        },
        {
            "type": "External",
            "external": {
                "metric": {"name": "waiting", "selector": {"matchLabels": {"queue": "all"}}},
                "target": {"type": "AverageValue", "averageValue": 30},
            },
        },
    ],
    "behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 600},
    },
}


def ends(job: Played) -> None:
    """It succeeds, and of all that was for its pods nothing is left."""
    job.until_phase("Succeeded")
    job.until("nothing is left", lambda: not any(map(job.kubectl.list, CHILDREN)))


@pytest.fixture
def done(operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]) -> Played:
    """A job with an autoscaler that has succeeded."""
    manifest = played_job("digits", player.label, {}, autoscaling=AUTOSCALING)
    job = Played(new_namespace(), player, manifest)
    job.until("an autoscaler", lambda: job.kubectl.list("hpa"))
    ends(job)
    return job


def test_another_run_has_a_ledger_of_its_own(done: Played) -> None:
    first = done.status()
    refusal = done.kubectl(
        "patch", "dtjob", "digits", "--type=merge", '--patch={"spec":{"rerun":-1}}', fails=True
    )
    assert "spec.rerun" in refusal
    done.edit({"rerun": 1})
    done.until("it begins", lambda: done.status().get("rerun") == 1)
    refusal = done.kubectl(
        "patch", "dtjob", "digits", "--type=merge", '--patch={"spec":{"rerun":2}}', fails=True
    )
    assert "only once the job has ended" in refusal
    ends(done)
    status = done.status()
    stored = done.kubectl.get("dtjob", "digits")
    assert stored is not None
    again = child_name("digits", stored["metadata"]["uid"], 1)
    assert status["ledger"] == again
    (last,) = status["previousRuns"]
    assert (last["ledger"], last["epsilonSpent"]) == (done.child, first["privacy"]["epsilonSpent"])
    for name in (done.child, again):
        ledger = done.kubectl.get("privacyledger", name)
        assert ledger is not None
        assert ledger["status"]["charged"] == 40
    assert len(done.kubectl.list("pvc")) == 2


def test_what_has_succeeded_is_not_done_again_by_another_job(
    done: Played, proxy: ApiProxy, player: Player
) -> None:
    """As where Argo CD makes it again, or a namespace's manifests are applied anew."""
    first = done.status()
    done.kubectl("delete", "dtjob", "digits")
    wait_until_gone(done.kubectl, "dtjob", "digits", 60)
    manifest = played_job("digits", player.label, {}, image="example.invalid/another:1")
    again = Played(done.kubectl, player, manifest)
    again.kubectl("wait", "dtjob/digits", "--for=condition=Succeeded", "--timeout=60s")
    status = again.status()
    assert status["display"]["reason"] == "AlreadyCompleted"
    assert status["ledger"] == done.child != again.child
    assert status["privacy"]["epsilonSpent"] == first["privacy"]["epsilonSpent"]
    assert not any(map(again.kubectl.list, CHILDREN))
    assert len(again.kubectl.list("privacyledgers")) == 1
    proxy.settle()
    before = len(proxy.writes())
    again.kubectl("annotate", "dtjob", "digits", "note=1")
    proxy.settle()
    written = [
        each for each in proxy.writes()[before:] if again.kubectl.namespace == each.namespace
    ]
    assert written == []


def test_what_has_failed_is_done_again_and_spends_anew(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> None:
    """The script counts as content: the same in both, it fails each time."""
    fault = {"do": "Fail", "step": 5, "reason": "DatasetInvalid", "message": "1436 records"}
    manifest = played_job("digits", player.label, {"faults": [fault]})
    first = Played(new_namespace(), player, manifest)
    first.until_phase("Failed")
    charged = first.ledger_status()["charged"]
    first.kubectl("delete", "dtjob", "digits")
    wait_until_gone(first.kubectl, "dtjob", "digits", 60)
    again = Played(first.kubectl, player, manifest)
    again.until_phase("Failed")
    assert again.ledger_status()["charged"] == charged > 0
    assert "SpendsAgain" in again.events()
