"""Pods that nobody can end, since their node is gone: when they are deleted by force.

A pod's name is free only once its kubelet reports its end, and a node that is gone reports nothing.
What still runs there can neither lease nor publish once its pod is deleted: its token is bound to
that, and the ledger knows a newer attempt (rule 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from dtjob_operator.decide.facts import Facts
from dtjob_operator.terms.kinds import Json

_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


@dataclass(frozen=True)
class LostPod:
    """A pod that is to go and whose node is gone.

    Attributes
    ----------
    why
        What became of its node, after that's name.
    due
        When it is deleted by force.
    """

    pod: Json
    node: str
    why: str
    due: datetime

    @property
    def name(self) -> str:
        """The pod's."""
        found: str = self.pod["metadata"]["name"]
        return found


def lost_pods(facts: Facts) -> Iterator[LostPod]:
    """Those of the job, in order."""
    for pod in facts.observed.pods:
        node = pod.get("spec", {}).get("nodeName")
        if "deletionTimestamp" not in pod["metadata"] or node not in facts.observed.nodes:
            continue
        found = facts.observed.nodes[node]
        if found is None:
            yield LostPod(pod, node, "is gone", facts.now)
        elif any(t["key"] == _OUT_OF_SERVICE for t in found.get("spec", {}).get("taints", ())):
            yield LostPod(pod, node, "is out of service", facts.now)
        elif (since := _silent_since(found)) is not None:
            seconds = facts.job.spec.run_policy.node_lost.force_after_seconds
            due = datetime.fromisoformat(since) + timedelta(seconds=seconds)
            yield LostPod(pod, node, f"has not answered since {since}", due)


def overdue_pods(facts: Facts) -> Iterator[LostPod]:
    """Those that are deleted by force now."""
    return (each for each in lost_pods(facts) if each.due <= facts.now)


def _silent_since(node: Json) -> str | None:
    """Since when the node's kubelet has not answered; None where it does."""
    for each in node.get("status", {}).get("conditions", ()):
        if each["type"] == "Ready" and each["status"] == "Unknown":
            found: str = each["lastTransitionTime"]
            return found
    return None
