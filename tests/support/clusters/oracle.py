"""Looks at every version of a cluster's jobs, ledgers and StatefulSets while tests run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3
from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config

from tests.support.clusters.invariants import Invariants, Manifest

_DTJOB = "/apis/dtjob.dev/v1alpha1"
_WATCHED = {
    "DistributedTrainingJob": f"{_DTJOB}/distributedtrainingjobs",
    "PrivacyLedger": f"{_DTJOB}/privacyledgers",
    "StatefulSet": "/apis/apps/v1/statefulsets",
}
_WATCH_SECONDS = 300
_PAUSE_SECONDS = 0.5


class Oracle:
    """Watches until the process ends; a watch that breaks goes on where it was."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client: ApiClient = new_client_from_config(config_file=str(kubeconfig))
        self._lock = threading.Lock()
        self._violations: list[str] = []
        self.seen = 0
        """Versions that were looked at."""
        for kind, path in _WATCHED.items():
            threading.Thread(target=self._follow, args=(kind, path), daemon=True).start()

    def take(self) -> list[str]:
        """What was broken since the last call."""
        with self._lock:
            found, self._violations = self._violations, []
        return found

    def _follow(self, kind: str, path: str) -> None:
        invariants, version = Invariants(), ""
        while True:
            try:
                version = version or self._list(kind, path, invariants)
                version = self._watch(path, version, invariants)
            except (urllib3.exceptions.HTTPError, OSError, ValueError):
                time.sleep(_PAUSE_SECONDS)

    def _list(self, kind: str, path: str, invariants: Invariants) -> str:
        listed: Manifest = json.loads(b"".join(self._lines(path)))
        if "items" not in listed:  # there is no such kind yet
            raise ValueError(listed)
        for obj in listed["items"]:
            self._see("ADDED", {"kind": kind} | obj, invariants)
        return str(listed["metadata"]["resourceVersion"])

    def _watch(self, path: str, version: str, invariants: Invariants) -> str:
        """Follow a watch to its end; returns the version to go on from, "" where none will do."""
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        for line in self._lines(path + query):
            event = json.loads(line)
            if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                return ""
            self._see(event["type"], event["object"], invariants)
            version = event["object"]["metadata"]["resourceVersion"]
        time.sleep(_PAUSE_SECONDS)
        return version

    def _see(self, event: str, obj: Manifest, invariants: Invariants) -> None:
        found = list(invariants.violations(event, obj, time.monotonic()))
        with self._lock:
            self.seen += 1
            self._violations += found

    def _lines(self, path: str) -> Iterator[bytes]:
        request = self._client.param_serialize("GET", path, auth_settings=["BearerToken"])
        method, url, headers = request[0], request[1], request[2]
        pool = self._client.rest_client.pool_manager
        answer = pool.request(method, url, headers=headers, preload_content=False)
        try:
            rest = b""
            for chunk in answer.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
            if rest:
                yield rest
        finally:
            answer.release_conn()
