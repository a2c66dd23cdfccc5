"""Writes in the name of the operator's account, as whoever has its token could make them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from dtjob_api.job.autoscaling import Autoscaling
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.positions import Role
from dtjob_operator.decide.builders.autoscaler import autoscaler
from dtjob_operator.decide.builders.disruption_budget import disruption_budget
from dtjob_operator.decide.builders.ledger import ledger
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.decide.builders.role_binding import role_binding
from dtjob_operator.decide.builders.service import service
from dtjob_operator.decide.builders.service_account import service_account
from dtjob_operator.decide.builders.stateful_set import stateful_set
from dtjob_operator.terms.settings import Settings
from tests.support.builders import UID, new_job, privacy_plan
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for

OPERATOR = "--as=system:serviceaccount:dtjob-system:dtjob-operator"
REFUSED = "the dtjob operator writes no "
"""How its policy begins most of what it says, but for the field."""
DRY = "--dry-run=server"


KINDS = (
    "statefulset",
    "service",
    "networkpolicy",
    "poddisruptionbudget",
    "horizontalpodautoscaler",
    "privacyledger",
    "serviceaccount",
    "rolebinding",
)
"""What it makes for jobs."""


def job(namespace: str, **spec: Any) -> DistributedTrainingJob:
    """A job of that namespace that there may have been; `spec` replaces fields."""
    manifest = new_job("digits", **spec)
    manifest["metadata"] |= {"namespace": namespace, "uid": UID}
    return DistributedTrainingJob.from_dict(manifest)


def children(of: DistributedTrainingJob) -> dict[str, Manifest]:
    """What the operator makes for a job alone, by what kubectl calls its kind."""
    return {
        "statefulset": stateful_set(of, Role.COORDINATOR, 1),
        "statefulset/-w": stateful_set(of, Role.WORKER, 1),
        "service": service(of),
        "networkpolicy": network_policy(of, (), Settings()),
        "poddisruptionbudget": disruption_budget(of),
        "privacyledger": ledger(of, privacy_plan()),
        "horizontalpodautoscaler": autoscaler(of, Autoscaling(max_replicas=4)),
    }


def shared(namespace: str) -> dict[str, Manifest]:
    """What the jobs of a namespace share."""
    return {
        "serviceaccount": service_account(namespace),
        "rolebinding": role_binding(namespace),
    }


def changed(obj: Manifest, change: Callable[[Manifest], None]) -> Manifest:
    """A copy with a change."""
    other = copy.deepcopy(obj)
    change(other)
    return other


def write(kubectl: Kubectl, obj: Manifest, *, fails: bool = False) -> str:
    """Apply an object in the operator's name, as it does, without effect."""
    how = ("apply", "--server-side", "--field-manager=dtjob-operator", "--filename=-")
    force = "--force-conflicts"
    return kubectl(*how, force, DRY, OPERATOR, stdin=json.dumps(obj), fails=fails)


def wait_until_in_force(kubectl: Kubectl) -> None:
    """A policy works some seconds after it is installed."""

    def stray(child: Manifest) -> None:
        del child["metadata"]["ownerReferences"]

    stranger = changed(children(job(kubectl.namespace))["service"], stray)

    def refused() -> bool:
        try:
            write(kubectl, stranger)
        except AssertionError as error:
            return REFUSED in str(error)
        return False

    wait_for("the policy operator-writes is in force", refused, 60)
