"""The headless Service that gives the workers stable addresses."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.well_known import HELLO_PORT, HTTP_PORT, STORE_PORT
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json


def service(job: DistributedTrainingJob) -> Json:
    """Addresses for workers that are not ready yet: they have to meet before they can be."""
    return {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": kinds.SERVICE.name,
        "metadata": names.child_metadata(job),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(job),
            "ports": [
                {"name": "http", "port": HTTP_PORT, "protocol": "TCP"},
                {"name": "store", "port": STORE_PORT, "protocol": "TCP"},
                {"name": "hello", "port": HELLO_PORT, "protocol": "TCP"},
            ],
        },
    }
