"""A Node that no machine stands behind, kept alive as a kubelet does."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import aiohttp

from dtjob_api.model import timestamp
from standin.api import Api, ApiError, Json

LABEL = "dtjob.dev/standin"
"""Nodes carry it, and a pod that is to be played names it in its node selector."""

_BEAT_SECONDS = 10
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def _now() -> str:
    return timestamp(datetime.now(UTC))


class Node:
    """One Node; the scheduler leaves it alone, so that no pod waits for a volume on it."""

    def __init__(self, api: Api, name: str, label: str) -> None:
        self._api, self.name, self._label = api, name, label

    async def create(self) -> None:
        """Make it, ready, unless it is there."""
        labels = {LABEL: self._label, "kubernetes.io/hostname": self.name}
        node: Json = {"apiVersion": "v1", "kind": "Node", "spec": {"unschedulable": True}}
        node["metadata"] = {"name": self.name, "labels": labels}
        with contextlib.suppress(ApiError):  # it is left from a play before
            await self._api.request("POST", "/api/v1/nodes", node)
        room = {"cpu": "1000", "memory": "1Ti", "pods": "10000"}
        ready = {"type": "Ready", "status": "True", "reason": "StandIn"}
        ready |= {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {"conditions": [ready], "capacity": room, "allocatable": room}
        path = f"/api/v1/nodes/{self.name}/status"
        await self._api.request("PATCH", path, {"status": status})

    async def keep_alive(self) -> None:
        """Renew its lease for ever."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ApiError):
                await self._renew()
            await asyncio.sleep(_BEAT_SECONDS)

    async def delete(self) -> None:
        """Remove it."""
        for path in (f"{_LEASES}/{self.name}", f"/api/v1/nodes/{self.name}"):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ApiError):
                await self._api.request("DELETE", path)

    async def _renew(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": at}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        try:
            await self._api.request("PATCH", f"{_LEASES}/{self.name}", {"spec": spec})
        except ApiError:
            await self._api.request("POST", _LEASES, lease | {"metadata": {"name": self.name}})
