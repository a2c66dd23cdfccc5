"""Pods' own tokens, made by the API server and verified as a coordinator does: offline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.config import kube_config

from dtjob_api.wire.gang import Hello
from dtjob_trainer.gang.members import Gang
from dtjob_trainer.identity.credentials import PodToken
from dtjob_trainer.identity.issuer import Issuer, NotPublished, ask_api_server
from dtjob_trainer.identity.proof import Expected, HelloDenied, Speaker
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

AUDIENCE = "dtjob.dev/gang/0a1b2c3d-0000-4000-8000-000000000001"
#: What the API server makes no shorter.
SECONDS = 600


@pytest.fixture
def account(namespace: Kubectl) -> Kubectl:
    """A namespace with an account for workers, which no role is bound to."""
    metadata = {"name": "dtjob-worker"}
    namespace.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    return namespace


def new_pod(kubectl: Kubectl, name: str) -> str:
    """The UID of a pod that no node takes."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "worker", "image": "none.invalid/none", "securityContext": restricted}
    spec = {
        "serviceAccountName": "dtjob-worker",
        "schedulerName": "nobody",
        "containers": [container],
    }
    metadata = {"name": name}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    pod: Manifest = wait_for(name, lambda: kubectl.get("pod", name), 60)
    uid: str = pod["metadata"]["uid"]
    return uid


def token(kubectl: Kubectl, *more: str, audience: str = AUDIENCE) -> str:
    argv = ("create", "token", "dtjob-worker", f"--audience={audience}", f"--duration={SECONDS}s")
    return kubectl(*argv, *more).strip()


def of_pod(kubectl: Kubectl, name: str, uid: str, audience: str = AUDIENCE) -> str:
    """What the kubelet would put into the pod's volume."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    return token(kubectl, *bound, audience=audience)


@pytest.fixture
def coordinator(
    account: Kubectl,
    with_token: Callable[[Kubectl, str], Kubectl],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> PodToken:
    """The coordinator, with no other rights than every ServiceAccount has."""
    (path := tmp_path / "token").write_text(of_pod(account, "set-0", new_pod(account, "set-0")))
    own = account("create", "token", "dtjob-worker").strip()
    as_worker = with_token(account, own)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(as_worker.kubeconfig))
    expected = Expected(AUDIENCE, account.namespace, "set")
    return PodToken(path, expected, Issuer(ask_api_server))


def heard(coordinator: PodToken, token: str) -> Speaker:
    return asyncio.run(coordinator.speaker(f"Bearer {token}", b""))


def test_two_pods_of_one_position_compete(account: Kubectl, coordinator: PodToken) -> None:
    """The old pod is gone, and its token holds for minutes: nobody is asked about it."""
    old = new_pod(account, "set-w-0")
    of_old = of_pod(account, "set-w-0", old)
    account("delete", "pod", "set-w-0", "--now")
    new = new_pod(account, "set-w-0")
    of_new = of_pod(account, "set-w-0", new)
    gang = Gang()
    hello = Hello(position=1, incarnation="a", ready=True)
    for shown, uid in ((of_old, old), (of_new, new)):
        speaker = heard(coordinator, shown)
        assert (speaker.position, speaker.pod) == (1, uid)
        gang.admit(hello, speaker, 2)
    with pytest.raises(HelloDenied, match="was replaced"):
        gang.admit(hello, heard(coordinator, of_old), 2)


def test_the_coordinator_is_known_by_its_own_token(coordinator: PodToken) -> None:
    own = coordinator.show(b"")
    assert asyncio.run(coordinator.speaker(own, b"")).position == 0


def test_tokens_made_for_something_else_are_refused(
    account: Kubectl, coordinator: PodToken
) -> None:
    uid, other = new_pod(account, "set-w-0"), new_pod(account, "another-w-0")
    tokens = {
        "audience": of_pod(account, "set-w-0", uid, audience=f"{AUDIENCE}-another"),
        "bound to no pod": token(account),
        "no worker's pod": of_pod(account, "another-w-0", other),
    }
    for why, shown in tokens.items():
        with pytest.raises(HelloDenied, match=why):
            heard(coordinator, shown)


def test_the_api_server_takes_no_token_of_the_gang(
    account: Kubectl, with_token: Callable[[Kubectl, str], Kubectl]
) -> None:
    shown = of_pod(account, "set-0", new_pod(account, "set-0"))
    refused = with_token(account, shown)("get", "pods", fails=True)
    assert "Unauthorized" in refused or "logged in" in refused


def test_a_right_that_was_taken_away_is_named(
    account: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a platform that bound discovery to fewer accounts."""
    content: dict[str, Any] = json.loads(account.kubeconfig.read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {}}]
    (anonymous := tmp_path / "anonymous").write_text(json.dumps(content))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(anonymous))
    with pytest.raises(NotPublished, match="system:service-account-issuer-discovery") as caught:
        ask_api_server()
    assert caught.value.lasting
