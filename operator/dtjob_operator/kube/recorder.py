"""Events on a job, as `kubectl describe` shows them."""

from __future__ import annotations

import hashlib
import socket
from datetime import UTC, datetime

from dtjob_api import shown
from dtjob_operator.kube.api_errors import AlreadyExists
from dtjob_operator.kube.client import Cluster
from dtjob_operator.terms.decision import Emit
from dtjob_operator.terms.kinds import EVENT, Json
from dtjob_operator.terms.names import FIELD_MANAGER

_MAX_MESSAGE = 1024


class Recorder:
    """Records events; the same news about the same object is one event that counts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def record(self, regarding: Json, emit: Emit) -> None:
        """Record an event on a namespaced object.

        The name is a function of what is told, so that a recorder that was killed before it could
        note that it had told leaves one event, not two.

        Parameters
        ----------
        regarding
            The object, with apiVersion, kind and UID.
        emit
            The event; its message is cut at 1,024 characters.
        """
        metadata = regarding["metadata"]
        message = shown.line(emit.message)[:_MAX_MESSAGE]
        told = "\n".join((metadata["uid"], emit.type, emit.reason, emit.about or message))
        name = f"{metadata['name']}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": emit.type,
            "reason": emit.reason,
            "message": message,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": socket.gethostname(),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.create(event)
        except AlreadyExists:
            known = await self._cluster.get(EVENT, metadata["namespace"], name)
            again = {"count": known["count"] + 1, "lastTimestamp": now}
            await self._cluster.merge_patch(EVENT, metadata["namespace"], name, again)
