"""A job in the cluster as its user's kubectl shows it: what names its pods, ledger and claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dtjob_api.derive import child_name
from dtjob_api.wire import positions
from dtjob_cli import kubectl

Json = dict[str, Any]


@dataclass(frozen=True)
class ClusterJob:
    """A stored job.

    Attributes
    ----------
    ledger
        Name of the PrivacyLedger of its run: of an earlier job's that did the same work
        (`AlreadyCompleted`), that one's. Pods and claim are named by it.
    """

    name: str
    namespace: str
    uid: str
    ledger: str
    spec: Json = field(repr=False)

    @property
    def claim(self) -> str:
        """Its checkpoint claim."""
        return f"checkpoints-{positions.pod_name(self.ledger, 0)}"

    def pod_of(self, rank: int) -> str:
        """The pod of the worker that has this rank."""
        workers = self.spec.get("workers") or {}
        each = workers.get("gpusPerWorker") or workers.get("processesPerWorker") or 1
        return positions.pod_name(self.ledger, rank // each)


def get(name: str, namespace: str | None) -> ClusterJob:
    """Return the job of that name.

    Raises
    ------
    CommandError
        In the words of kubectl, if there is none or it may not be read.
    """
    stored = kubectl.get("distributedtrainingjobs.dtjob.dev", name, namespace)
    metadata, spec, status = stored["metadata"], stored["spec"], stored.get("status") or {}
    own = child_name(metadata["name"], metadata["uid"], spec.get("rerun") or 0)
    return ClusterJob(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        ledger=status.get("ledger") or own,
        spec=spec,
    )


def running_container(pod: Json | None) -> Json | None:
    """Return the container of a pod that runs and is not to be deleted; None of any other."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return None
    statuses = pod.get("status", {}).get("containerStatuses") or []
    if not any("running" in (each.get("state") or {}) for each in statuses):
        return None
    container: Json = pod["spec"]["containers"][0]
    return container
