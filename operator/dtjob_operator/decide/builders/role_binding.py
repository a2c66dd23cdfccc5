"""What a namespace's workers may do: the installation's ClusterRole, in that namespace."""

from __future__ import annotations

from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json

_RBAC = "rbac.authorization.k8s.io"


def role_binding(namespace: str) -> Json:
    """Binds the workers' account to the one ClusterRole that the operator may bind."""
    return {
        "apiVersion": kinds.ROLE_BINDING.api_version,
        "kind": kinds.ROLE_BINDING.name,
        "metadata": {
            "name": kinds.WORKER_ACCOUNT,
            "namespace": namespace,
            "labels": names.shared_labels(),
        },
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": names.WORKER_ROLE},
        "subjects": [
            {"kind": "ServiceAccount", "name": kinds.WORKER_ACCOUNT, "namespace": namespace}
        ],
    }
