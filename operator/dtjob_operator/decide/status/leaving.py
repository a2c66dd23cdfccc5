"""Pods that are on their way out, and who decided so: drains, preemption, taints, deletion."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from dtjob_operator.read.pod_status import disruption, has_outlived, is_running
from dtjob_operator.terms.kinds import Json

# Reasons of the condition DisruptionTarget, as Kubernetes documents them.
_WHY = {
    "EvictionByEvictionAPI": "is evicted, as kubectl drain and node upgrades do",
    "PreemptionByScheduler": "makes room for a pod of higher priority",
    "DeletionByTaintManager": "has to leave its node, which has a taint that it does not tolerate",
    "DeletionByPodGC": "is removed, since its node is gone",
    "TerminationByKubelet": "is ended by its node, which shuts down or lacks memory or disk",
}


# A kubelet takes some seconds to report an end, and longer while it unmounts what is slow; a node
# counts as gone after 50 s without a sign of life.
_REPORT_SLACK = timedelta(minutes=1)


def leaving(pods: Iterable[Json], now: datetime) -> str | None:
    """Which pods leave, and why: the first one, and how many others do; None where none does.

    One that was to be gone comes first: it may stay for ever.
    """
    found = [pod for pod in pods if _is_leaving(pod)]
    if not found:
        return None
    stays = next((pod for pod in found if has_outlived(pod, now, _REPORT_SLACK)), None)
    first, why = (found[0], _why(found[0])) if stays is None else (stays, _why_still(stays))
    others = len(found) - 1
    more = f" (and {others} more leave)" if others else ""
    return f"pod {first['metadata']['name']} {why}{more}"


def _is_leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"] or disruption(pod) is not None


def _why_still(pod: Json) -> str:
    """Why a pod is there that was to be gone, and what would help."""
    metadata, node = pod["metadata"], pod.get("spec", {}).get("nodeName")
    was_to_go = f"was to be gone by {metadata['deletionTimestamp']}"
    finalizers = metadata.get("finalizers", [])
    if node is None or (finalizers and not is_running(pod)):
        return (
            f"{was_to_go} and is kept by its finalizers ({', '.join(finalizers)}): see that what "
            "has put them there runs, for it takes them away again"
        )
    name, namespace = metadata["name"], metadata["namespace"]
    return (
        f"{was_to_go}, and its node {node} does not say that it has ended: see kubectl describe "
        f"node {node}. Another takes its place once that node answers, or is deleted. Where that "
        "machine is known to be off, and only there, since the pod may run on: kubectl delete pod "
        f"{name} --namespace {namespace} --force"
    )


def _why(pod: Json) -> str:
    reason = disruption(pod)
    if reason is None:
        return "is being deleted"
    return _WHY.get(reason, f"has to leave its node ({reason})")
