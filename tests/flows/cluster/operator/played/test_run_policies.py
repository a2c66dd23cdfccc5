"""What a job's run policy does with its failures, its time and its end; played workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_process import OperatorProcess
from tests.support.jobs.played_jobs import Played, Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SLOW = {"secondsPerStep": 2}
KILLED = {"faults": [{"do": "Signal", "rank": 1, "step": 4, "attempt": None}]}


@pytest.fixture
def begun(
    operator: OperatorProcess, player: Player, new_namespace: Callable[[], Kubectl]
) -> Callable[[dict[str, Any], dict[str, Any]], Played]:
    """Creates a job with a script and a run policy."""
    del operator

    def begin(script: dict[str, Any], policy: dict[str, Any]) -> Played:
        manifest = played_job("digits", player.label, script, runPolicy=policy)
        return Played(new_namespace(), player, manifest)

    return begin


Begin = Callable[[dict[str, Any], dict[str, Any]], Played]


def failed(job: Played) -> dict[str, Any]:
    """The condition `Failed` of a job that has failed, of whose pods none is left."""
    job.until_phase("Failed")
    job.until("its pods are gone", lambda: not job.kubectl.list("pods"))
    found: dict[str, Any] = next(
        each for each in job.status()["conditions"] if each["type"] == "Failed"
    )
    return found


def test_a_rule_ends_a_job_at_the_first_failure_that_it_fits(begun: Begin) -> None:
    job = begun(KILLED, {"rules": [{"signals": [9], "action": "Fail"}]})
    found = failed(job)
    assert found["reason"] == "FailureRule"
    assert "spec.runPolicy.rules[0] (signal 9: Fail)" in found["message"]
    assert len(job.ledger()["status"]["attempts"]) == 1


def test_what_a_rule_ignores_uses_up_no_restart(begun: Begin) -> None:
    """The reserve bounds it all the same: each attempt has leased."""
    once = {
        "faults": [{"do": "Signal", "rank": 1, "step": 4, "attempt": number} for number in (1, 2)]
    }
    policy = {"maxRestarts": 0, "rules": [{"signals": [9], "action": "Ignore"}]}
    job = begun(once, policy | {"backoff": {"initialSeconds": 1, "maxSeconds": 1}})
    job.until_phase("Succeeded")
    attempts = job.ledger()["status"]["attempts"]
    assert [each.get("ignored") for each in attempts] == [True, True, None]


def test_a_change_is_followed_by_workers_that_run(begun: Begin) -> None:
    """Without a new pod, and without an operator in between."""
    gate = {"secondsPerStep": 0.5, "faults": [{"do": "Signal", "rank": 1, "step": 12}]}
    job = begun(gate, {"maxRestarts": 10})
    job.until_phase("Running")
    pods = {each["metadata"]["uid"] for each in job.kubectl.list("pods")}
    job.edit({"runPolicy": {"maxRestarts": 0}})
    job.until("the ledger has it", lambda: job.ledger()["spec"]["runPolicy"]["maxRestarts"] == 0)
    assert {each["metadata"]["uid"] for each in job.kubectl.list("pods")} == pods
    assert failed(job)["reason"] == "RestartsExhausted"
    assert len(job.ledger()["status"]["attempts"]) == 1


def test_a_job_that_takes_too_long_saves_and_fails(begun: Begin) -> None:
    job = begun(SLOW, {"activeDeadlineSeconds": 8})
    found = failed(job)
    assert found["reason"] == "DeadlineExceeded"
    status = job.ledger()["status"]
    assert status["attempts"][-1]["reason"] == "Stopped"
    assert status["lease"]["closedAt"] <= status["charged"]
    assert "outcome" not in status
    job.until("its children are gone", lambda: not job.kubectl.list("statefulsets"))


def test_a_job_is_deleted_after_its_end_and_what_it_spent_is_not(begun: Begin) -> None:
    job = begun({}, {"ttlSecondsAfterFinished": 2})
    job.until("the job is gone", lambda: job.kubectl.get("dtjob", "digits") is None)
    job.until("its children are gone", lambda: not job.kubectl.list("statefulsets"))
    assert job.ledger()["status"]["outcome"]["state"] == "Succeeded"
    assert job.kubectl.list("persistentvolumeclaims")


def test_pods_of_a_job_that_has_failed_stay_for_a_look(begun: Begin) -> None:
    policy = {"maxRestarts": 0, "holdAfterFailureSeconds": 8}
    job = begun(KILLED, policy)
    job.until_phase("Failed")
    assert len(job.kubectl.list("pods")) == 2
    failed(job)
