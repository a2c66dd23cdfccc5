"""An outcome that states another epsilon than was spent: nobody is told it (rule 13)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.ledger_writers import bound_token
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TIME = "2026-01-01T00:00:00Z"
FORGED = "40 of 40 steps done, epsilon 0.0100 spent in 1 draws charged"


def as_coordinator(
    namespace: Kubectl, stored: Manifest, with_token: Callable[[Kubectl, str], Kubectl]
) -> Callable[[Manifest], None]:
    """Writes of a job's ledger, with the token of its coordinator's pod."""
    name = child_name(stored)
    wait_for("the pod", lambda: namespace.get("pod", f"{name}-0"), 120)
    kubectl = with_token(namespace, bound_token(namespace, f"{name}-0"))

    def write(changes: Manifest) -> None:
        ledger = namespace.get("privacyledger", name)
        assert ledger is not None
        status = {**ledger.get("status", {}), **changes}
        text = json.dumps({**ledger, "status": status})
        kubectl("replace", "--subresource=status", "--filename=-", stdin=text)

    return write


def test_a_forged_epsilon_is_shown_nowhere(
    operator: OperatorProcess,
    namespace: Kubectl,
    stored_job: Callable[[Manifest], Manifest],
    with_token: Callable[[Kubectl, str], Kubectl],
) -> None:
    private = {"epsilon": 8, "maxGradNorm": 1.0, "datasetSize": 1437}
    stored = stored_job(unplaced_job("digits", privacy=private))
    write = as_coordinator(namespace, stored, with_token)
    plan = (namespace.get("privacyledger", child_name(stored)) or {})["spec"]["plan"]
    segment: dict[str, Any] = {name: plan[name] for name in ("noiseMultiplier", "sampleRate")}
    checkpoint = {
        "step": 30,
        "charged": 35,
        "attempt": 1,
        "path": "attempt-1/step-30.pt",
        "sha256": "0" * 64,
        "time": TIME,
    }
    write(
        {
            "attempt": 1,
            "attempts": [{"attempt": 1, "start": TIME}],
            "charged": 35,
            "lease": {"attempt": 1, "fromDraw": 0, "toDraw": 35, "fromStep": 0},
            "segments": [segment | {"draws": 35, "image": "example.invalid/trainer:1"}],
            "checkpoint": checkpoint,
        }
    )
    outcome = {
        "state": "Succeeded",
        "reason": "PrivacyBudgetExhausted",
        "message": FORGED,
        "time": TIME,
        "result": {"epsilonSpent": "0.0100", "evaluation": {"accuracy": 0.9}},
    }
    write({"outcome": outcome})

    def ended(job: Manifest) -> bool:
        return bool(job.get("status", {}).get("phase") == "Succeeded")

    status = namespace.wait("dtjob", "digits", ended, 120)["status"]
    assert status["privacy"]["epsilonDraws"] == status["privacy"]["drawsCharged"] == 35
    assert 1 < float(status["privacy"]["epsilonSpent"]) <= 8
    assert status["result"] == {"steps": 30, "charged": 35, "evaluation": {"accuracy": 0.9}}
    wait_for("an event", lambda: "35 draws charged" in namespace("describe", "dtjob", "digits"), 60)
    for shown in (
        namespace("describe", "dtjob", "digits"),
        namespace("get", "dtjob", "digits", "--output=wide"),
        namespace("get", "events", "--output=json"),
    ):
        # Not as a part of a longer number, such as a time.
        assert re.search(r"(?<![\d.])0\.01(00)?(?!\d)", shown) is None
