"""The files of a played pod: tokens as its spec asks for, paths, and claims that are its own."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from standin.api import Api
from standin.mounts import Mounts
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

AUDIENCE = "dtjob.dev/gang/1a2b3c4d"


def pod_of(namespace: Kubectl, claim: str) -> Manifest:
    """A pod that no node takes, with a token for one audience and a claim."""
    token = {"path": "token", "audience": AUDIENCE, "expirationSeconds": 600}
    projected = {"sources": [{"serviceAccountToken": token}]}
    container = {
        "name": "worker",
        "image": "example.invalid/trainer:1",
        "volumeMounts": [
            {"name": "gang", "mountPath": "/var/run/dtjob/gang"},
            {"name": "state", "mountPath": "/var/run/dtjob/state"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "nodeSelector": {"dtjob.dev/test": "no-such-node"},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "gang", "projected": projected},
            {"name": "state", "persistentVolumeClaim": {"claimName": claim}},
        ],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker-1"}, "spec": spec}
    namespace.apply(pod)
    stored = namespace.get("pod", "worker-1")
    assert stored is not None
    return stored


def make_claim(namespace: Kubectl) -> None:
    """A claim that nothing binds."""
    resources = {"requests": {"storage": "1Mi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "state"}}
    namespace.apply(claim | {"spec": spec})


def made(namespace: Kubectl, pod: Manifest, folder: Path) -> Mounts:
    """The pod's files."""

    async def make() -> Mounts:
        api = Api(namespace.kubeconfig)
        try:
            mounts = Mounts(api, pod, folder)
            await mounts.make()
            return mounts
        finally:
            await api.close()

    return asyncio.run(make())


def claims_of(token: str) -> dict[str, Any]:
    """What a token says of itself."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * 3))
    return found


def test_a_token_is_for_its_audience_and_bound_to_its_pod(
    namespace: Kubectl, tmp_path: Path
) -> None:
    make_claim(namespace)
    pod = pod_of(namespace, "state")
    mounts = made(namespace, pod, tmp_path)
    said = claims_of(Path(mounts.here("/var/run/dtjob/gang/token")).read_text())
    assert said["aud"] == [AUDIENCE]
    assert said["exp"] - said["iat"] == 600
    bound = said["kubernetes.io"]["pod"]
    assert bound == {"name": "worker-1", "uid": pod["metadata"]["uid"]}


def test_paths_of_a_configuration_lead_to_the_pods_own_files(
    namespace: Kubectl, tmp_path: Path
) -> None:
    make_claim(namespace)
    mounts = made(namespace, pod_of(namespace, "state"), tmp_path)
    told = mounts.translated({"stateDir": "/var/run/dtjob/state", "other": "/mnt/x", "port": 8080})
    assert (told["other"], told["port"]) == ("/mnt/x", 8080)
    assert Path(told["stateDir"]).is_relative_to(tmp_path / "claims")


def test_a_claim_that_is_made_anew_is_empty(namespace: Kubectl, tmp_path: Path) -> None:
    make_claim(namespace)
    pod = pod_of(namespace, "state")
    state = Path(made(namespace, pod, tmp_path).here("/var/run/dtjob/state"))
    (state / "journal").write_text("x")
    again = Path(made(namespace, pod, tmp_path).here("/var/run/dtjob/state"))
    assert (again / "journal").exists()
    namespace("delete", "pod", "worker-1", "--force", "--grace-period=0")
    namespace("delete", "pvc", "state")
    make_claim(namespace)
    anew = Path(made(namespace, pod_of(namespace, "state"), tmp_path).here("/var/run/dtjob/state"))
    assert list(anew.iterdir()) == []
