"""Rules and webhooks of the platform team: what they refuse, and whom one that hangs holds up."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

REGISTRATION = "admissionregistration.k8s.io/v1"
STUCK = 24


def made(kind: str, name: str, **fields: object) -> Manifest:
    return {"apiVersion": REGISTRATION, "kind": kind, "metadata": {"name": name}, **fields}


def within(namespace: Kubectl) -> Manifest:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace.namespace}}


@contextmanager
def applied(kubectl: Kubectl, *objects: Manifest) -> Iterator[None]:
    try:
        kubectl.apply(*objects)
        yield
    finally:
        for each in objects:
            kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found")


@contextmanager
def denied(installed: Kubectl, namespace: Kubectl, group: str, resource: str) -> Iterator[None]:
    """A policy that refuses a kind in a namespace, once it works."""
    name = f"none-of-{resource}-{namespace.namespace}"
    rule = {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    policy = made(
        "ValidatingAdmissionPolicy",
        name,
        spec={
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "the platform team's alone"}],
        },
    )
    binding = made(
        "ValidatingAdmissionPolicyBinding",
        name,
        spec={
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": within(namespace)},
        },
    )
    spec: Manifest = {"podSelector": {}} if group else {"ports": [{"port": 80}]}
    probe = {
        "apiVersion": f"{group}/v1" if group else "v1",
        "kind": {"networkpolicies": "NetworkPolicy", "services": "Service"}[resource],
        "metadata": {"name": "probe"},
        "spec": spec,
    }

    def works() -> bool:
        try:
            namespace("create", "--dry-run=server", "--filename=-", stdin=json.dumps(probe))
        except AssertionError as refused:
            return "platform team's alone" in str(refused)
        return False

    with applied(installed, policy, binding):
        wait_for("the policy works", works, 60)
        yield


@pytest.mark.parametrize(
    ("group", "resource"), [("networking.k8s.io", "networkpolicies"), ("", "services")]
)
def test_no_pod_is_made_without_what_a_policy_refuses(
    operator: OperatorProcess, installed: Kubectl, namespace: Kubectl, group: str, resource: str
) -> None:
    """A policy's answer is `Invalid`, which is not tried again as it is; nor is what follows."""
    del operator
    with denied(installed, namespace, group, resource):
        namespace.apply(unplaced_job("digits"))

        def refusal() -> str | None:
            status = (namespace.get("dtjob", "digits") or {}).get("status", {})
            reasons = {each["type"]: each for each in status.get("conditions", [])}
            found = reasons.get("ResourcesReady", {})
            return found["message"] if found.get("reason") == "PodsRefused" else None

        message = wait_for("the status says what is refused", refusal, 60)
        assert "the platform team's alone" in message
        time.sleep(3)  # for looks that would go on with what follows
        assert not namespace.list("statefulsets")
        assert not namespace.list("pods")


def test_a_webhook_that_hangs_holds_up_its_own_namespace_alone(
    operator: OperatorProcess, installed: Kubectl, new_namespace: Callable[[], Kubectl]
) -> None:
    del operator
    sick, well = new_namespace(), new_namespace()
    # The API server is in a network of its own, and this machine at the first address of that.
    found = re.search(r"//([0-9]+[.][0-9]+[.][0-9]+[.])", installed.kubeconfig.read_text())
    assert found is not None
    silent = socket.create_server(("0.0.0.0", 0), backlog=512)
    held: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                held.append(silent.accept()[0])
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    webhook = {
        "name": "silent.example.com",
        "clientConfig": {"url": f"https://{found[1]}1:{silent.getsockname()[1]}/"},
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["services"],
            }
        ],
        "namespaceSelector": within(sick),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
        "failurePolicy": "Fail",
    }
    hook = made("ValidatingWebhookConfiguration", "silent-of-tests", webhooks=[webhook])

    def seconds_to_its_set(name: str) -> float:
        began = time.monotonic()
        well.apply(unplaced_job(name))
        job = well.get("dtjob", name)
        assert job is not None
        wait_for("its set", lambda: well.get("statefulset", child_name(job)), 120)
        return time.monotonic() - began

    try:
        with applied(installed, hook):
            time.sleep(2)  # until the API server knows of it
            sick.apply(*(unplaced_job(f"stuck-{number}") for number in range(STUCK)))
            wait_for("looks that hang", lambda: len(held) >= 16, 60)
            waited = [seconds_to_its_set(f"later-{number}") for number in range(3)]
            assert max(waited) < 5, waited
    finally:
        silent.close()
        for each in held:
            each.close()
