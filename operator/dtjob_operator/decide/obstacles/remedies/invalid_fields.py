"""Which fields of a job an object is made from that the API server calls invalid."""

from __future__ import annotations

import re

_INVALID = re.compile(r"\"\S+\" is invalid: (?P<errors>.+)$", re.DOTALL)
# One field, or a list of them in brackets, each with its own words behind it.
_FIELD = re.compile(
    r"(?:^|[\[,] *)(?P<field>(?:spec|metadata)(?:\.[A-Za-z]+|\[[^\]]*\])*): "
    r"(?:Invalid|Required|Unsupported|Duplicate|Forbidden|Too)"
)
_POD = r"spec\.(?:template\.spec\.)?"
_SOURCES = tuple(
    (re.compile(pattern), of_job)
    for pattern, of_job in (
        (rf"{_POD}containers\[0\]\.envFrom", "spec.workers.template.envFrom"),
        (rf"{_POD}containers\[0\]\.env", "spec.workers.template.env"),
        (rf"{_POD}containers\[0\]\.volumeMounts", "spec.workers.template.volumeMounts"),
        (rf"{_POD}containers\[0\]\.resources", "spec.workers.resources"),
        (rf"{_POD}containers\[0\]\.image\b", "spec.image"),
        (rf"{_POD}volumes", "spec.workers.template.volumes or spec.storage.data"),
        (rf"{_POD}nodeSelector", "spec.workers.template.nodeSelector"),
        (rf"{_POD}tolerations", "spec.workers.template.tolerations"),
        (rf"{_POD}serviceAccountName", "spec.workers.serviceAccountName"),
        (rf"{_POD}imagePullSecrets", "spec.imagePullSecrets"),
        (r"spec\.volumeClaimTemplates", "spec.storage.checkpoints"),
        (r"spec\.egress", "spec.network.egress"),
    )
)
_MAY_CHANGE = frozenset({"spec.network.egress"})


def invalid_fields_remedy(cause: str) -> str | None:
    """Which fields of the job to correct, and how; None where nothing of an object is invalid.

    Kubernetes promises no more of these words than of others, but the paths are its API's own.
    """
    found = _INVALID.search(cause)
    if found is None:
        return None
    fields = [each["field"] for each in _FIELD.finditer(found["errors"])]
    ours = dict.fromkeys(of_job for field in fields for of_job in _made_from(field))
    if not ours:
        return (
            "Nothing that a job may say becomes this field: operator and Kubernetes are of "
            "versions that do not fit, or a policy of the cluster changes what the operator writes"
        )
    if ours.keys() <= _MAY_CHANGE:
        return f"It comes from {' and '.join(ours)}, which may change at any time: correct that"
    return f"It comes from {' and '.join(ours)}: correct that in a new job"


def _made_from(field: str) -> list[str]:
    return [of_job for pattern, of_job in _SOURCES if pattern.match(field)][:1]
