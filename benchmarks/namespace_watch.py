"""Every version of a namespace's objects and every log line of its pods, as they come."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

Json = dict[str, Any]
_WATCH_SECONDS = 600
_DTJOB = "/apis/dtjob.dev/v1alpha1"
_WATCHED = {
    "DistributedTrainingJob": (_DTJOB, "distributedtrainingjobs"),
    "PrivacyLedger": (_DTJOB, "privacyledgers"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "ControllerRevision": ("/apis/apps/v1", "controllerrevisions"),
    "Service": ("/api/v1", "services"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}
# Their field managers are named after the clients' libraries.
_WRITERS = {"PrivacyLedger/status": "coordinator", "kubectl-client-side-apply": "kubectl"}


class Api:
    """The API server, by plain GET requests."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.connection_pool_maxsize = 32
        token = settings.get_api_key_with_prefix("authorization")
        self._headers = {"Authorization": token} if token else {}
        self._pool: urllib3.PoolManager = client.ApiClient(settings).rest_client.pool_manager
        self._host: str = settings.host

    def get(self, path: str) -> bytes:
        """The body of an answer, whatever its status."""
        return self._pool.request("GET", self._host + path, headers=self._headers).data

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of an answer as they come."""
        answer = self._pool.request(
            "GET", self._host + path, headers=self._headers, preload_content=False
        )
        rest = b""
        for chunk in answer.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)


@dataclass(frozen=True)
class Write:
    """One version of an object, when a watch reported it."""

    at: float
    kind: str
    writer: str
    obj: Json


@dataclass
class Watcher:
    """Streams of a namespace's objects and of its pods' logs; times are this machine's."""

    api: Api
    namespace: str
    writes: list[Write] = field(default_factory=list)
    logs: list[Json] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _followed: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Watch from now on."""
        for kind, (group, plural) in _WATCHED.items():
            path = f"{group}/namespaces/{self.namespace}/{plural}"
            version = json.loads(self.api.get(path))["metadata"]["resourceVersion"]
            query = f"?watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
            self._thread(self._watch, kind, path + query)

    def _thread(self, target: Callable[..., None], *arguments: str) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _watch(self, kind: str, path: str) -> None:
        known: dict[str, Json] = {}
        for line in self.api.lines(path):
            event, at = json.loads(line), time.time()
            obj = event["object"]
            uid = obj.get("metadata", {}).get("uid")
            if event["type"] not in ("ADDED", "MODIFIED", "DELETED") or uid is None:
                continue
            write = Write(at, kind, _writer(event, known.get(uid)), obj)
            known[uid] = obj
            with self._lock:
                self.writes.append(write)
            if kind == "Pod" and obj["status"].get("phase") == "Running":
                self._follow(obj["metadata"]["name"])

    def _follow(self, pod: str) -> None:
        if pod not in self._followed:
            self._followed.add(pod)
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log?follow=true"
            self._thread(self._read_log, pod, path)

    def _read_log(self, pod: str, path: str) -> None:
        for line in self.api.lines(path):
            if line.startswith(b"{"):
                with self._lock:
                    self.logs.append({"pod": pod} | json.loads(line))

    def moment(self, kind: str, holds: Callable[[Json], object]) -> float | None:
        """When an object of a kind was first seen that `holds`."""
        with self._lock:
            return next(
                (write.at for write in self.writes if write.kind == kind and holds(write.obj)),
                None,
            )

    def logged(self, message: str) -> list[Json]:
        """Log entries of the workers with this message."""
        with self._lock:
            return [entry for entry in self.logs if entry.get("message") == message]


def _writer(event: Json, before: Json | None) -> str:
    """Who wrote an object's new version: the manager whose entry is new or changed."""
    metadata = event["object"]["metadata"]
    if event["type"] == "DELETED" or "deletionTimestamp" in metadata:
        return "deletion"
    old = (before or {}).get("metadata", {}).get("managedFields", [])
    entries = metadata.get("managedFields", [])
    changed = [entry for entry in entries if entry not in old] or entries[-1:]
    if not changed:
        return "unknown"
    newest = max(changed, key=lambda entry: entry.get("time", ""))
    place = f"{event['object']['kind']}/{newest.get('subresource', '')}"
    return _WRITERS.get(place) or _WRITERS.get(newest["manager"], newest["manager"])
