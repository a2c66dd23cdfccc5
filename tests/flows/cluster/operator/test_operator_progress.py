"""What the coordinator says reaches the job's status, and what the operator may do is no more
than what it does."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from ruamel.yaml import YAML

from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from tests.support.clusters import standstill
from tests.support.clusters.api_proxy import ApiProxy, Asked
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import BASE, OperatorProcess, child_name, unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OUTCOME_SECONDS = 2
SHOWN_SECONDS = 5
STARTS_SECONDS = 120
StoredJob = Callable[[Manifest], Manifest]
WithToken = Callable[[Kubectl, str], Kubectl]


class Coordinator:
    """Plays the coordinator pod of a job: its address, its report, its ledger."""

    def __init__(self, kubectl: Kubectl, stored: Manifest, with_token: WithToken) -> None:
        self._kubectl = kubectl
        self.name = child_name(stored)
        self.job_uid = stored["metadata"]["uid"]
        self.pod = f"{self.name}-0"
        wait_for("the pod", lambda: kubectl.get("pod", self.pod), STARTS_SECONDS)
        binding = ("--bound-object-kind=Pod", f"--bound-object-name={self.pod}")
        token = kubectl("create", "token", "dtjob-worker", *binding).strip()
        self._as_pod = with_token(kubectl, token)
        # An address of its own on this machine, where its report is served.
        self.address = str(
            ipaddress.ip_address("127.77.0.2") + zlib.crc32(self.pod.encode()) % 9999
        )
        self.report: dict[str, Any] = {}
        self.asked = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(120)

    async def _serve(self) -> None:
        async def report(_request: web.Request) -> web.Response:
            self.asked.set()
            return web.json_response(self.report | {"jobUID": self.job_uid})

        app = web.Application()
        app.router.add_get(REPORT_PATH, report)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, HTTP_PORT).start()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(120)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def run_pods(self) -> None:
        """All pods of the set are ready, as a kubelet would tell."""
        for pod in self._kubectl.list("pods"):
            name = pod["metadata"]["name"]
            now = "2026-01-01T00:00:00Z"
            address = self.address if name == self.pod else "127.77.0.1"
            container = {
                "name": "worker",
                "image": "example.invalid/trainer:1",
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            status = {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                "containerStatuses": [container],
            }
            patch = json.dumps({"status": status})
            self._kubectl("patch", "pod", name, "--subresource=status", f"--patch={patch}")

    def write(self, status: Manifest) -> None:
        """Replace the ledger's status."""
        stored = self._kubectl.get("privacyledger", self.name)
        assert stored is not None
        ledger = json.dumps({**stored, "status": {**stored.get("status", {}), **status}})
        self._as_pod("replace", "--subresource=status", "--filename=-", stdin=ledger)


def report(**changes: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "attempt": 1,
        "workers": 2,
        "state": "Running",
        "stage": "training",
        "step": 4,
        "totalSteps": 40,
        "charged": 10,
        "reservedDraws": 70,
        "samplesPerSecond": 1234.5,
        "evaluation": {"step": 4, "accuracy": 0.5},
        "checkpoint": None,
        "heartbeatTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "estimatedCompletionTime": None,
        "gpu": None,
        "restarts": 0,
        "reason": None,
        "message": None,
    } | changes


def status(kubectl: Kubectl) -> dict[str, Any]:
    stored = kubectl.get("dtjob", "digits") or {}
    found: dict[str, Any] = stored.get("status", {})
    return found


@pytest.fixture
def coordinator(
    operator: OperatorProcess, namespace: Kubectl, stored_job: StoredJob, with_token: WithToken
) -> Iterator[Coordinator]:
    played = Coordinator(namespace, stored_job(unplaced_job("digits")), with_token)
    yield played
    played.close()


def begin(played: Coordinator, kubectl: Kubectl) -> None:
    """Pods come up, form the first attempt, lease draws and report."""
    played.report = report(state="Starting", stage="importing torch", samplesPerSecond=None)
    played.run_pods()
    wait_for("the operator asks for the report", played.asked.is_set, 60)
    lease = {"attempt": 1, "fromDraw": 0, "toDraw": 10, "fromStep": 0}
    segments = [{"draws": 10, "image": "example.invalid/trainer:1"}]
    attempts = [{"attempt": 1, "start": "2026-01-01T00:00:00Z"}]
    played.report = report()
    played.write(
        {"attempt": 1, "charged": 10, "lease": lease, "segments": segments, "attempts": attempts}
    )
    wait_for("Running", lambda: status(kubectl).get("phase") == "Running", 60)


def status_write(
    proxy: ApiProxy, kubectl: Kubectl, fits: Callable[[dict[str, Any]], bool]
) -> float:
    """When the API server took the first status of the job that fits."""

    def found() -> float | None:
        for each in proxy.writes():
            ours = each.namespace == kubectl.namespace and each.name == "digits"
            if ours and each.resource == "distributedtrainingjobs/status":
                status = json.loads(each.body).get("status", {})
                if fits(status):
                    return each.time
        return None

    return wait_for("the status that fits", found, 60)


@pytest.mark.alone
def test_the_first_report_is_shown_at_once(
    coordinator: Coordinator, proxy: ApiProxy, namespace: Kubectl
) -> None:
    begin(coordinator, namespace)
    running = status_write(proxy, namespace, lambda status: status.get("phase") == "Running")

    def shown(status: dict[str, Any]) -> bool:
        progress = status.get("progress", {})
        return progress.get("step") == 4 and "samplesPerSecond" in progress

    at = status_write(proxy, namespace, shown)
    assert standstill.ran(running, at) < SHOWN_SECONDS
    assert shown(status(namespace))


@pytest.mark.alone
def test_an_outcome_is_a_condition_within_two_seconds(
    coordinator: Coordinator, proxy: ApiProxy, namespace: Kubectl
) -> None:
    """Measured where the operator's write is answered: kubectl takes its own time to show it."""
    begin(coordinator, namespace)
    outcome = {
        "state": "Failed",
        "reason": "TaskInvalid",
        "message": "module bn: BatchNorm; use GroupNorm",
        "time": "2026-01-01T00:00:00Z",
    }
    coordinator.write({"outcome": outcome})
    written = time.time()

    def failed(status: dict[str, Any]) -> bool:
        return any(
            each["type"] == "Failed"
            and each["status"] == "True"
            and each["reason"] == "TaskInvalid"
            for each in status.get("conditions") or ()
        )

    at = status_write(proxy, namespace, failed)
    assert standstill.ran(written, at) < OUTCOME_SECONDS
    assert failed(status(namespace))
    wait_for("pods are released", lambda: replicas(namespace, coordinator.name) is None, 60)
    wait_for("an event", lambda: "BatchNorm" in namespace("describe", "dtjob", "digits"), 60)


def replicas(kubectl: Kubectl, name: str) -> int | None:
    """Of both StatefulSets."""
    sets = [kubectl.get("statefulset", each) for each in (name, f"{name}-w")]
    return sum(each["spec"]["replicas"] for each in sets if each) if all(sets) else None


@pytest.mark.local_cluster
@pytest.mark.usefixtures("no_scheduler")
def test_from_create_to_running_the_operator_writes_twelve_times(
    operator: OperatorProcess,
    proxy: ApiProxy,
    namespace: Kubectl,
    stored_job: StoredJob,
    with_token: WithToken,
) -> None:
    """The first job of a namespace, whose workers' account is made too."""
    start, began = len(proxy.writes()), time.monotonic()
    played = Coordinator(namespace, stored_job(unplaced_job("digits")), with_token)
    try:
        begin(played, namespace)
    finally:
        played.close()
    written = [
        (each.verb, each.resource)
        for each in proxy.writes()[start:]
        if each.namespace == namespace.namespace
    ]
    # A start that takes long earns one write of its figures every 30 s.
    allowed = 12 + int((time.monotonic() - began) // 30)
    assert len(written) <= allowed, "\n".join(map(str, written))


def test_rights_used_are_the_rights_granted(
    coordinator: Coordinator, proxy: ApiProxy, namespace: Kubectl
) -> None:
    """Runs after the tests above: what they made the operator do is on record."""
    used = {right for asked in proxy.asked for right in rights(asked)}
    beyond = [asked for asked in proxy.asked if asked.status == 403 and not asked.dry_run]
    assert not [asked for asked in beyond if namespace.namespace == asked.namespace]
    # Rights that no test of this module makes use of, each with what it is for.
    rare = {
        **{
            (kind, verb): "a child that differs, or whose name is taken"
            for kind in (
                "statefulsets.apps",
                "services.",
                "networkpolicies.networking.k8s.io",
                "poddisruptionbudgets.policy",
            )
            for verb in ("get", "patch")
        },
        **{
            ("horizontalpodautoscalers.autoscaling", verb): "a job that asks for one"
            for verb in ("create", "get", "patch", "delete")
        },
        ("privacyledgers.dtjob.dev", "get"): "one that seems lost",
        ("privacyledgers.dtjob.dev", "patch"): "another order to the workers",
        ("privacyledgers.dtjob.dev", "plan"): "a policy's own verb",
        ("clusterroles.rbac.authorization.k8s.io", "bind"): "asked for by the API server",
        ("rolebindings.rbac.authorization.k8s.io", "delete"): "a binding to another role",
        ("networkpolicies.networking.k8s.io", "delete"): "a job that asks for none any more",
        ("distributedtrainingjobs.dtjob.dev", "get"): "after a conflict",
        ("persistentvolumeclaims.", "get"): "a claim that seems lost",
        ("nodes.", "get"): "pods that stay beyond their time",
        ("pods.", "delete"): "pods whose node is gone",
        ("distributedtrainingjobs.dtjob.dev", "delete"): "a time to live after the end",
        ("events.", "get"): "an event told again",
        ("events.", "patch"): "an event told again",
    }
    granted = {right for right in granted_rights() if right not in rare}
    assert granted - used == set()


def rights(asked: Asked) -> set[tuple[str, str]]:
    """What RBAC has to allow for a request."""
    resource, _, subresource = asked.resource.partition("/")
    full = f"{resource}.{asked.group}" + (f"/{subresource}" if subresource else "")
    # A server-side apply that makes an object needs the right to create it too.
    creates = asked.verb == "patch" and asked.status == 201
    return {(full, asked.verb)} | ({(full, "create")} if creates else set())


def granted_rights() -> set[tuple[str, str]]:
    documents = YAML(typ="safe").load_all((BASE / "operator-rbac.yaml").read_text())
    found = set()
    for document in documents:
        for rule in document.get("rules", ()):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    name, _, subresource = resource.partition("/")
                    full = f"{name}.{group}" + (f"/{subresource}" if subresource else "")
                    found |= {(full, verb) for verb in rule["verbs"]}
    return found
