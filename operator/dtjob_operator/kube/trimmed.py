"""What is held of an object: no more than `Observed` names, so that memory goes by what is used.

Everything that the API server answers passes through here as it arrives, page by page of a list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from dtjob_operator.kube.ownership import others_of_spec
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import (
    JOB_LABEL,
    JOB_UID_LABEL,
    ROLE_LABEL,
    SPEC_SET_BY,
    Json,
    Kind,
)

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_IDENTITY = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)
_OWNER = ("kind", "name", "controller")
_LABELS = (JOB_LABEL, JOB_UID_LABEL, ROLE_LABEL)
_POD_SPEC = ("nodeName",)
_POD_STATUS = ("phase", "reason", "message", "startTime", "podIP")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
_CONTAINER = ("name", "image", "state", "lastState")
_EVENT = (
    "involvedObject",
    "reason",
    "message",
    "type",
    "count",
    "series",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
)
_ABOUT = ("kind", "name")
# By what draws were made is for reports, which read the ledger itself.
_PROVENANCE = frozenset({"formats", "versions", "taskDigest"})
_ENDED_ATTEMPT = ("attempt", "start", "end", "reason")


def trimmed(obj: Json, kind: Kind) -> Json:
    """An object as far as it is used, with the apiVersion and kind that the items of a list lack.

    What is compared with what is wanted, and what another version may have extended, is whole but
    for the bookkeeping of `kubectl apply` and server-side apply. Of that no more is kept than who
    else has set something in the spec of a child.
    """
    return kinds.typed(_TRIMMERS.get(kind, _whole)(obj), kind)


def _whole(obj: Json) -> Json:
    metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    if _LAST_APPLIED in (annotations := metadata.get("annotations") or {}):
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    return {**obj, "metadata": metadata}


def _child(obj: Json) -> Json:
    """A child as a whole, and who else has set something in its spec."""
    others = others_of_spec(obj)
    return {**_whole(obj), SPEC_SET_BY: others} if others else _whole(obj)


def _autoscaler(obj: Json) -> Json:
    """Without its status, which moves all the time."""
    return {field: value for field, value in _child(obj).items() if field != "status"}


def _pod(obj: Json) -> Json:
    status = obj.get("status") or {}
    kept = _of(status, _POD_STATUS)
    if conditions := status.get("conditions"):
        kept["conditions"] = [_of(each, _CONDITION) for each in conditions]
    for field in ("containerStatuses", "initContainerStatuses"):
        if containers := status.get(field):
            kept[field] = [_of(each, _CONTAINER) for each in containers]
    metadata = _identity(obj)
    owners = obj["metadata"].get("ownerReferences") or ()
    if controllers := [_of(owner, _OWNER) for owner in owners if owner.get("controller")]:
        metadata["ownerReferences"] = controllers
    if finalizers := obj["metadata"].get("finalizers"):
        metadata["finalizers"] = finalizers
    pod: Json = {"metadata": metadata, "status": kept}
    if spec := _of(obj.get("spec") or {}, _POD_SPEC):
        pod["spec"] = spec
    return pod


def _claim(obj: Json) -> Json:
    return {
        "metadata": _identity(obj),
        "spec": _of(obj.get("spec") or {}, ("storageClassName", "volumeName")),
        "status": _of(obj.get("status") or {}, ("phase",)),
    }


def _node(obj: Json) -> Json:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    ready = [_of(each, _CONDITION) for each in conditions if each.get("type") == "Ready"]
    taints = (obj.get("spec") or {}).get("taints") or ()
    return {
        "metadata": _identity(obj),
        "spec": {"taints": [_of(each, ("key", "effect")) for each in taints]},
        "status": {"conditions": ready},
    }


def _event(obj: Json) -> Json:
    about = _of(obj.get("involvedObject") or {}, _ABOUT)
    return {"metadata": _identity(obj), **_of(obj, _EVENT), "involvedObject": about}


def _ledger(obj: Json) -> Json:
    """A ledger without provenance, and once it has its outcome without the words of its attempts.

    Ledgers stay when their jobs are gone. Fields that nobody here knows are kept, since they say
    that another version wrote it.
    """
    status = dict(obj.get("status") or {})
    if segments := status.get("segments"):
        status["segments"] = [
            {k: _shared(v) for k, v in each.items() if k not in _PROVENANCE} for each in segments
        ]
    if status.get("outcome") and (attempts := status.get("attempts")):
        status["attempts"] = [_of(each, _ENDED_ATTEMPT) for each in attempts]
    spec = dict(obj.get("spec") or {})
    if plan := spec.get("plan"):
        spec["plan"] = {k: _shared(v) for k, v in plan.items()}
    known = {"spec": spec, "status": status} if status else {"spec": spec}
    return {**obj, "metadata": _identity(obj), **known}


_TRIMMERS: dict[Kind, Callable[[Json], Json]] = {
    **dict.fromkeys(kinds.SPEC_IS_OURS, _child),
    kinds.AUTOSCALER: _autoscaler,
    kinds.POD: _pod,
    kinds.CLAIM: _claim,
    kinds.EVENT: _event,
    kinds.NODE: _node,
    kinds.LEDGER: _ledger,
}


def _identity(obj: Json) -> Json:
    metadata = obj["metadata"]
    found = _of(metadata, _IDENTITY)
    if labels := _of(metadata.get("labels") or {}, _LABELS):
        found["labels"] = labels
    return found


def _of(fields: Json, names: tuple[str, ...]) -> Json:
    return {name: _shared(fields[name]) for name in names if fields.get(name) is not None}


def _shared(value: Any) -> Any:
    """The value; equal texts of many objects, such as an image, are one in memory."""
    return sys.intern(value) if type(value) is str else value
