"""The account that a namespace's workers run as."""

from __future__ import annotations

from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json


def service_account(namespace: str) -> Json:
    """One account for all jobs of a namespace; it outlives them, so it has no owner."""
    return {
        "apiVersion": kinds.SERVICE_ACCOUNT.api_version,
        "kind": kinds.SERVICE_ACCOUNT.name,
        "metadata": {
            "name": kinds.WORKER_ACCOUNT,
            "namespace": namespace,
            "labels": names.shared_labels(),
        },
    }
