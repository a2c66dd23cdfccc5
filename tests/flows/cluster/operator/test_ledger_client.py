"""The trainer's ledger in a cluster: what it asks of the API server while nothing happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes.config import kube_config

from dtjob_trainer.ledger import kubernetes_ledger
from dtjob_trainer.ledger.backend import LedgerUnreadable, Versioned
from dtjob_trainer.ledger.kubernetes_ledger import KubernetesLedger
from tests.support.clusters import standstill
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def ledger(
    operator: OperatorProcess,
    proxy: ApiProxy,
    operator_token: str,
    namespace: Kubectl,
    stored_job: Callable[[Manifest], Manifest],
    monkeypatch: pytest.MonkeyPatch,
) -> KubernetesLedger:
    """The ledger of a job, read with the operator's rights by way of the proxy."""
    name = child_name(stored_job(unplaced_job("digits")))
    wait_for("its ledger", lambda: namespace.get("privacyledger", name), 120)
    kubeconfig = str(proxy.kubeconfig(operator_token))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig)
    return KubernetesLedger(namespace.namespace, name)


def watches(proxy: ApiProxy, namespace: Kubectl) -> int:
    asked = [each for each in proxy.asked if each.namespace == namespace.namespace]
    return sum(each.verb == "watch" and each.resource == "privacyledgers" for each in asked)


def change(admin: Kubectl, stored: Versioned) -> None:
    """An administrator's doing; no operator changes what it has written."""
    ledger = stored.ledger.to_dict()
    patch = json.dumps({"spec": {"run": ledger["spec"]["run"] | {"generation": 2}}})
    name = ledger["metadata"]["name"]
    admin("patch", "privacyledger", name, "--type=merge", f"--patch={patch}")


def test_an_idle_ledger_costs_one_watch(
    ledger: KubernetesLedger, proxy: ApiProxy, namespace: Kubectl
) -> None:
    version = ledger.read().version
    before = watches(proxy, namespace)
    assert ledger.wait(version, 10.0) is None
    assert watches(proxy, namespace) - before == 1


def test_a_change_is_heard_through_an_outage(
    ledger: KubernetesLedger, proxy: ApiProxy, namespace: Kubectl
) -> None:
    first = ledger.read()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(ledger.wait, first.version, 240.0)
        proxy.disconnect()
        try:
            change(namespace, first)
            assert not heard.done()
        finally:
            proxy.connect()
        began = time.time()
        newest = heard.result(120)
        ended = time.time()
    assert newest is not None
    assert newest.ledger.spec.run.generation == 2
    assert standstill.ran(began, ended) < 15


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_has_just_started_is_not_believed_at_once(
    ledger: KubernetesLedger, proxy: ApiProxy, namespace: Kubectl, status: int
) -> None:
    """It answers so until it has read roles and kinds; a job must not end by that."""
    first = ledger.read()
    until = time.monotonic() + 2

    def refuse(_method: str, path: str) -> int | None:
        ours = f"/namespaces/{namespace.namespace}/privacyledgers" in path
        return status if ours and time.monotonic() < until else None

    proxy.refuse = refuse
    try:
        assert ledger.read() == first
        until = time.monotonic() + 2
        change(namespace, first)
        newest = ledger.wait(first.version, 120.0)
    finally:
        proxy.refuse = lambda _method, _path: None
    assert newest is not None
    assert newest.ledger.spec.run.generation == 2


@pytest.mark.rule(10)
def test_an_outage_leaves_the_patience_with_a_server_that_comes_back(
    ledger: KubernetesLedger,
    proxy: ApiProxy,
    namespace: Kubectl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call waits through an outage, and then through the refusals of the new server."""
    first = ledger.read()
    monkeypatch.setattr(kubernetes_ledger, "_ITSELF_AGAIN_SECONDS", 6.0)
    back = time.monotonic() + 10.0  # longer than the patience
    refusals = iter([403, 403])

    def refuse(method: str, path: str) -> int | None:
        if method != "GET" or f"/namespaces/{namespace.namespace}/privacyledgers" not in path:
            return None
        return 503 if time.monotonic() < back else next(refusals, None)

    proxy.refuse = refuse
    try:
        assert ledger.read() == first
    finally:
        proxy.refuse = lambda _method, _path: None
    assert next(refusals, None) is None


def test_a_ledger_of_a_newer_operator_is_named(
    ledger: KubernetesLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ledger.read().ledger.to_dict() | {"metadata": {"name": "x", "resourceVersion": "1"}}
    stored["spec"]["queueing"] = 1
    monkeypatch.setattr(ledger, "_get", lambda: stored)
    with pytest.raises(LedgerUnreadable, match=r"spec\.queueing: .*different versions"):
        ledger.read()
