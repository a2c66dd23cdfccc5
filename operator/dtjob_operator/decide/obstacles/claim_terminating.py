"""A checkpoint claim that goes, with all that was saved, once no pod uses it any more."""

from __future__ import annotations

from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import OF_PODS, ObstacleKind
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding


def _detect(facts: Facts) -> Finding | None:
    claim = facts.observed.claim
    if claim is None or "deletionTimestamp" not in claim["metadata"]:
        return None
    name, volume = claim["metadata"]["name"], claim["spec"].get("volumeName")
    keep = (
        f"kubectl patch pv {volume} --patch "
        """'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}' keeps the volume"""
        if volume
        else "it has no volume yet"
    )
    return Finding(
        Reason.CLAIM_TERMINATING,
        f"PersistentVolumeClaim {name} in namespace {names.namespace(facts.job)} was deleted: it "
        "goes once no pod uses it, with the checkpoints and the journal on it, and nothing takes "
        f"that back. {keep}: do it while the pods run. A claim of this name for that volume "
        "(spec.volumeName) lets the job go on",
    )


# A gang that has formed trains on; it is shown all the same.
KIND = ObstacleKind(
    detect=_detect,
    conditions=OF_PODS | {ConditionType.CHECKPOINT_FRESH},
)
