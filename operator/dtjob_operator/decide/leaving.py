"""Pods that are on their way out, and who decided so: drains, preemption, taints, deletion."""

from __future__ import annotations

from collections.abc import Iterable

from dtjob_operator.read.pod_status import disruption
from dtjob_operator.terms.kinds import Json

# Reasons of the condition DisruptionTarget, as Kubernetes documents them.
_WHY = {
    "EvictionByEvictionAPI": "is evicted, as kubectl drain and node upgrades do",
    "PreemptionByScheduler": "makes room for a pod of higher priority",
    "DeletionByTaintManager": "has to leave its node, which has a taint that it does not tolerate",
    "DeletionByPodGC": "is removed, since its node is gone",
    "TerminationByKubelet": "is ended by its node, which shuts down or lacks memory or disk",
}


def leaving(pods: Iterable[Json]) -> str | None:
    """Which pods leave, and why: the first one, and how many others do; None where none does."""
    found = [(pod["metadata"]["name"], why) for pod in pods if (why := _why(pod)) is not None]
    if not found:
        return None
    (name, why), *others = found
    return f"pod {name} {why}" + (f" (and {len(others)} more leave)" if others else "")


def _why(pod: Json) -> str | None:
    reason = disruption(pod)
    if reason is not None:
        return _WHY.get(reason, f"has to leave its node ({reason})")
    return "is being deleted" if "deletionTimestamp" in pod["metadata"] else None
