"""A pod whose node is gone: no other takes its place before it is deleted by force."""

from __future__ import annotations

from dtjob_api.model import timestamp
from dtjob_api.reasons import Reason
from dtjob_api.wire.positions import Role
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.lost_nodes import LostPod, lost_pods
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    lost = next(lost_pods(facts), None)
    if lost is None:
        return None
    at = f"at {timestamp(lost.due)}" if lost.due > facts.now else "now"
    return Finding(
        Reason.NODE_LOST,
        f"node {lost.node} {lost.why}, and pod {lost.name} with it: it is deleted by force {at} "
        f"(spec.runPolicy.nodeLost), and another takes its place{_where(facts, lost)}. If the node "
        "will not come back, delete it (kubectl delete node), and nothing is waited for",
    )


def _where(facts: Facts, lost: LostPod) -> str:
    if names.role_of(facts.job, lost.pod) is Role.COORDINATOR:
        return ", on a node that reaches its volume: where none does the job waits for this one"
    return ""


# A gang that has not noticed trains on; it is shown all the same.
KIND = ObstacleKind(detect=_detect, conditions=OF_PODS)
