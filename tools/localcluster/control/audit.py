"""What accounts of pods ask the API server for, by its own word.

Kubernetes' own controllers are left out, and so are people: nobody else's rights are of interest.
"""

from __future__ import annotations

import json
from pathlib import Path

from localcluster.cluster.instance import Instance

_OWN = "system:serviceaccounts:kube-system"
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": [_OWN]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def log(instance: Instance) -> Path:
    """The file with one audit event a line."""
    return instance.logs / "audit.jsonl"


def arguments(instance: Instance) -> list[str]:
    """What the API server is started with, so that it writes that file."""
    return [f"--audit-policy-file={_policy_file(instance)}", f"--audit-log-path={log(instance)}"]


def write_policy(instance: Instance) -> None:
    """Write what the API server reads as it starts."""
    _policy_file(instance).write_text(json.dumps(_POLICY))


def _policy_file(instance: Instance) -> Path:
    return instance.folder / "audit-policy.json"
