"""Those who may write ledgers, or try to: accounts, pods and their tokens."""

from __future__ import annotations

import secrets

from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for


def pod(name: str, account: str = "dtjob-worker") -> Manifest:
    """A pod that no node takes: a token can be bound to it all the same."""
    container = {
        "name": "worker",
        "image": "example.invalid/trainer:1",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account,
            "nodeSelector": {"dtjob.dev/test": "no-such-node"},
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def grant(kubectl: Kubectl, account: str, role: str, account_namespace: str) -> None:
    kubectl(
        "create",
        "rolebinding",
        f"{role}-{secrets.token_hex(3)}",
        f"--clusterrole={role}",
        f"--serviceaccount={account_namespace}:{account}",
    )


def workers(kubectl: Kubectl, *pods: str) -> None:
    """The namespace's workers' account, bound as the operator binds it, and some of its pods."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dtjob-worker"}}
    kubectl.apply(account)
    grant(kubectl, "dtjob-worker", "dtjob-worker", kubectl.namespace)
    # The account admission controller takes a moment to see a new account.
    wait_for("an account", lambda: kubectl.get("serviceaccount", "dtjob-worker"), 10)
    kubectl.apply(*map(pod, pods))


def bound_token(kubectl: Kubectl, pod_name: str, account: str = "dtjob-worker") -> str:
    binding = ("--bound-object-kind=Pod", f"--bound-object-name={pod_name}")
    return kubectl("create", "token", account, *binding).strip()
