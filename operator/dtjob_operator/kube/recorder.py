"""Events on a job, as `kubectl describe` shows them."""

from __future__ import annotations

import hashlib
import socket
from datetime import UTC, datetime

from dtjob_api import shown
from dtjob_operator.kube.api_errors import AlreadyExists
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.terms.decision import Event
from dtjob_operator.terms.kinds import EVENT, Json
from dtjob_operator.terms.names import FIELD_MANAGER

_MAX_MESSAGE = 1024


class Recorder:
    """Records Events; one that is repeated is counted, not recorded anew."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def record(self, regarding: Json, event: Event) -> None:
        """Record an Event on a namespaced object.

        Its name is a function of its content, so that a recorder that is killed before it notes
        the success leaves one Event, not two.

        Parameters
        ----------
        regarding
            The object, with apiVersion, kind and UID.
        event
            Its message is cut at 1,024 characters.
        """
        metadata = regarding["metadata"]
        message = shown.line(event.message)[:_MAX_MESSAGE]
        identity = "\n".join((metadata["uid"], event.type, event.reason, event.about or message))
        name = f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        obj = {
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
            "type": event.type,
            "reason": event.reason,
            "message": message,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": socket.gethostname(),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._client.create(obj)
        except AlreadyExists:
            known = await self._client.get(EVENT, metadata["namespace"], name)
            again = {"count": known["count"] + 1, "lastTimestamp": now}
            await self._client.merge_patch(EVENT, metadata["namespace"], name, again)
