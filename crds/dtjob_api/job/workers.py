"""`spec.workers`: how many worker pods, and of what size."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from dtjob_api.job.template import WorkerTemplate
from dtjob_api.model import Json, Model, ObjectName, Quantity, rule, rules

GPU_RESOURCE = "nvidia.com/gpu"
MOST_WORKERS = 4096

_QUANTITIES: Json = {"maxProperties": 16}
# Of any other resource Kubernetes takes no request that differs from the limit, and refuses the
# workers itself. A rule for all 16 would be too dear for it before 1.34 (`model.not_negative`).
_COMPARED = ["cpu", "memory", "ephemeral-storage"]


class Resources(Model):
    """Compute resources of one worker pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"[has(self.requests) && '{GPU_RESOURCE}' in self.requests, "
                f"has(self.limits) && '{GPU_RESOURCE}' in self.limits].all(given, !given)",
                f"{GPU_RESOURCE} is set from workers.gpusPerWorker; remove it here",
            ),
            rule(
                f"!has(self.requests) || !has(self.limits) || {_COMPARED}.all(name, "
                "!(name in self.requests) || !(name in self.limits) || "
                "!isQuantity(string(self.requests[name])) || "
                "!isQuantity(string(self.limits[name])) || "
                "!quantity(string(self.requests[name]))"
                ".isGreaterThan(quantity(string(self.limits[name]))))",
                "must not exceed the limit of the same resource; raise limits or lower requests",
                field=".requests",
            ),
        )
    )

    requests: Annotated[dict[str, Quantity], Field(json_schema_extra=_QUANTITIES)] = Field(
        default_factory=dict
    )
    limits: Annotated[dict[str, Quantity], Field(json_schema_extra=_QUANTITIES)] = Field(
        default_factory=dict
    )


class Workers(Model):
    """The gang of worker pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.gpusPerWorker == 0 || self.processesPerWorker == 1",
                "with GPUs one process runs on each GPU; leave processesPerWorker at 1",
                field=".processesPerWorker",
            )
        )
    )

    replicas: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule(
                    f"self >= 1 && self <= {MOST_WORKERS}",
                    f"must be between 1 and {MOST_WORKERS} worker pods",
                ),
            )
        ),
    ] = 1
    """Number of worker pods."""

    processes_per_worker: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule("self >= 1 && self <= 256", "must be between 1 and 256 processes"),
            )
        ),
    ] = 1
    """Rank processes in a pod on CPUs; with GPUs there is one for each GPU."""

    gpus_per_worker: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule(
                    "self >= 0 && self <= 64",
                    "must be between 0 (train on CPUs) and 64 GPUs",
                ),
            )
        ),
    ] = 0
    """GPUs of a pod; 0 trains on CPUs over gloo."""

    resources: Resources = Resources()
    """Compute resources of a pod, GPUs apart."""

    service_account_name: ObjectName | None = None
    """The workers' ServiceAccount; by default one that the operator makes."""

    template: WorkerTemplate = WorkerTemplate()
    """Additions to the worker pods."""

    @property
    def ranks_per_worker(self) -> int:
        """Rank processes in one pod."""
        return self.gpus_per_worker or self.processes_per_worker
