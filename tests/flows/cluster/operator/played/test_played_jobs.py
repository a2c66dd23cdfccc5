"""Whole courses of jobs, their workers played: what the operator makes of what coordinators say.

All jobs are applied at once, each in a namespace of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dtjob_api.wire.positions import pod_name
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SLOWLY = {"secondsPerStep": 0.2}
SCRIPTS: dict[str, dict[str, Any]] = {
    "runs": {"evaluation": {"accuracy": 0.5}},
    "crashes": SLOWLY | {"faults": [{"do": "Leave", "rank": 1, "step": 5, "number": 139}]},
    "stopped": {"faults": [{"do": "Hold", "step": 5}]},
    "fails": {
        "faults": [{"do": "Fail", "reason": "DatasetInvalid", "message": "1436 records, not 1437"}]
    },
    "refuses": {
        "faults": [
            {"do": "Refuse", "attempt": None, "reason": "CheckpointLost", "message": "it is empty"}
        ]
    },
    "garbles": SLOWLY | {"faults": [{"do": "Garble", "step": 5}]},
    "speaks": {"secondsPerStep": 5},
}


@pytest.fixture(scope="module")
def played(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> Iterator[dict[str, Played]]:
    """One job for each script."""
    jobs = {
        name: Played(new_namespace(), player, played_job("digits", player.label, script))
        for name, script in SCRIPTS.items()
    }
    yield jobs
    for job in jobs.values():
        job.kubectl("delete", "dtjob", "digits", "--wait=false")


def test_a_deleted_pod_stops_in_order_and_comes_back(played: dict[str, Played]) -> None:
    job = played["stopped"]
    job.until("a step", lambda: job.ledger_status().get("charged"))
    job.kubectl("delete", "pod", job.pod(0), "--wait=false")
    job.until_phase("Succeeded")
    account = job.ledger_status()
    assert account["attempts"][0]["reason"] == "Stopped"
    assert account["charged"] == 40


def test_a_job_runs_to_its_end(played: dict[str, Played]) -> None:
    job = played["runs"]
    job.until_phase("Succeeded")
    status, account = job.status(), job.ledger_status()
    assert status["result"]["evaluation"] == {"step": 40, "accuracy": 0.5}
    assert status["privacy"]["drawsCharged"] == account["charged"] == 40
    job.until("its pods are released", lambda: not job.kubectl.list("pods"))


def test_a_container_that_crashes_is_counted(played: dict[str, Played]) -> None:
    job = played["crashes"]
    job.until_phase("Succeeded")
    assert job.ledger_status()["attempts"][0]["reason"] == "WorkerLost"
    assert job.status()["restarts"] == 1


def test_what_a_coordinator_says_for_good_is_the_jobs_word(played: dict[str, Played]) -> None:
    job = played["fails"]
    job.until_phase("Failed")
    failed = job.condition("Failed")
    assert (failed["reason"], failed["message"]) == ("DatasetInvalid", "1436 records, not 1437")


def test_a_refusal_is_shown_and_holds(played: dict[str, Played]) -> None:
    job = played["refuses"]
    job.until("it says so", lambda: job.condition("Running").get("reason") == "CheckpointLost")
    assert "it is empty" in job.condition("Running")["message"]
    assert job.ledger_status().get("charged", 0) == 0


def test_a_report_that_is_none_harms_nothing(played: dict[str, Played]) -> None:
    job = played["garbles"]
    job.until_phase("Succeeded")
    assert job.status()["privacy"]["drawsCharged"] == job.ledger_status()["charged"] == 40


def test_a_played_pod_speaks_for_itself_alone(
    played: dict[str, Played], with_token: Callable[[Kubectl, str], Kubectl]
) -> None:
    """The coordinator alone has a token, bound to it as the policy of the ledgers wants it."""
    job = played["speaks"]
    job.until("a lease", lambda: job.ledger_status().get("charged"))
    tokens = {
        pod["metadata"]["name"]: path
        for pod in job.kubectl.list("pods")
        for path in (job.player.folder / "pods" / pod["metadata"]["uid"]).glob(
            "kube-api-access-*/token"
        )
    }
    ((name, token),) = tokens.items()
    assert name == pod_name(job.child, 0)
    as_pod = with_token(job.kubectl, token.read_text())
    who = json.loads(as_pod("auth", "whoami", "--output=json"))["status"]["userInfo"]
    assert who["extra"]["authentication.kubernetes.io/pod-name"] == [name]
