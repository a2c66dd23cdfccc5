"""A bare client: it posts what the operator would make for a job, and looks after nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from scale.api import Api

from dtjob_api.wire.positions import Role
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_LABEL, JOB_UID_LABEL, ROLE_LABEL, Json, Kind

_MADE = (
    kinds.SERVICE,
    kinds.NETWORK_POLICY,
    kinds.DISRUPTION_BUDGET,
    kinds.STATEFUL_SET,
)
"""In the operator's order."""
_OF_THE_SERVER = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
)


@dataclass(frozen=True)
class Pattern:
    """Children of a job that the operator has made, to be made for others.

    At first all but the ledger and what the jobs of a namespace share.
    """

    job: str
    uid: str
    children: Sequence[Json]

    def poster(self, api: Api, namespace: str) -> Callable[[str], Awaitable[None]]:
        """What posts the same children for a job of another name, one after the other."""
        texts = [(kinds.kind_of(child), json.dumps(child)) for child in self.children]

        async def post(name: str) -> None:
            uid = str(uuid.uuid4())
            for kind, text in texts:
                renamed = text.replace(self.uid, uid).replace(self.uid[:8], uid[:8])
                body = json.loads(renamed.replace(self.job, name))
                await api.post(kind.path(namespace), body)

        return post

    def sets_and_service(self) -> Pattern:
        """Both StatefulSets, the coordinator's with its claim, and the Service."""
        return self._of(kinds.SERVICE, kinds.STATEFUL_SET)

    def one_set_and_service(self, workers: int) -> Pattern:
        """One StatefulSet of all workers, without a claim, and the Service."""
        chosen = self._of(kinds.SERVICE, kinds.STATEFUL_SET).children
        kept = [
            child
            for child in chosen
            if child["metadata"]["labels"].get(ROLE_LABEL) != Role.COORDINATOR
        ]
        text = json.dumps(kept)
        children = json.loads(text)
        for child in children:
            if child["kind"] == kinds.STATEFUL_SET.name:
                child["spec"]["replicas"] = workers
        return Pattern(self.job, self.uid, children)

    def _of(self, *chosen: Kind) -> Pattern:
        names = {kind.name for kind in chosen}
        kept = [child for child in self.children if child["kind"] in names]
        return Pattern(self.job, self.uid, kept)


async def pattern(api: Api, namespace: str, job: str) -> Pattern:
    """The children of a job as the API server has them, without what it has added."""
    children = []
    for kind in _MADE:
        found = await api.get(f"{kind.path(namespace)}?labelSelector={JOB_LABEL}={job}")
        for item in found["items"]:
            child = kinds.typed(item, kind)
            child.pop("status", None)
            for field in _OF_THE_SERVER:
                child["metadata"].pop(field, None)
            children.append(child)
    uid = children[0]["metadata"]["labels"][JOB_UID_LABEL]
    return Pattern(job, uid, children)


async def delete_all(api: Api, namespace: str) -> None:
    """Delete everything of those kinds, and the claims."""
    for kind in (*_MADE[1:], kinds.CLAIM):
        await api.delete(kind.path(namespace))
    services = await api.get(kinds.SERVICE.path(namespace))
    for service in services["items"]:
        await api.delete(kinds.SERVICE.path(namespace, service["metadata"]["name"]))
