"""`spec.autoscaling`: bounds and metrics of a HorizontalPodAutoscaler, as autoscaling/v2 has them.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dtjob_api.job.network import LabelSelector
from dtjob_api.job.workers import MOST_WORKERS
from dtjob_api.model import Json, Model, ObjectName, Quantity, rule, rules

MetricName = Annotated[str, Field(min_length=1, max_length=253)]
ApiVersion = Annotated[str, Field(min_length=1, max_length=253)]
KindName = Annotated[str, Field(min_length=1, max_length=63)]


def _between(least: int, most: int, what: str) -> Json:
    return rules(
        rule(f"self >= {least} && self <= {most}", f"must be between {least} and {most} {what}")
    )


Workers = Annotated[int, Field(json_schema_extra=_between(1, MOST_WORKERS, "worker pods"))]


def _by_type(fields: dict[str, str]) -> Json:
    """Of each type has one field of its own, and no other type has it."""
    return rules(
        *(
            rule(
                f"has(self.{field}) == (self.type == '{kind}')",
                f"is given where type is {kind}, and only there",
                field=f".{field}",
            )
            for kind, field in fields.items()
        )
    )


_VALUES = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}


class MetricTarget(Model):
    """What the autoscaler holds a metric at."""

    model_config = ConfigDict(json_schema_extra=_by_type(_VALUES))

    type: Literal["Utilization", "AverageValue", "Value"]
    average_utilization: (
        Annotated[int, Field(json_schema_extra=_between(1, 10000, "percent of what is requested"))]
        | None
    ) = None
    average_value: Quantity | None = None
    """Of the metric in each worker."""
    value: Quantity | None = None
    """Of the metric as it is."""


class MetricIdentifier(Model):
    """A metric by its name, and by its labels."""

    name: MetricName
    selector: LabelSelector | None = None


class ResourceMetric(Model):
    """CPU or memory of all containers of the workers' pods."""

    name: MetricName
    target: MetricTarget


class ContainerResourceMetric(Model):
    """CPU or memory of one container of the workers' pods; the trainer's is named `worker`."""

    container: KindName
    name: MetricName
    target: MetricTarget


class PodsMetric(Model):
    """A metric of each of the workers' pods."""

    metric: MetricIdentifier
    target: MetricTarget


class CrossVersionObjectReference(Model):
    """An object of the job's namespace."""

    api_version: ApiVersion | None = None
    kind: KindName
    name: ObjectName


class ObjectMetric(Model):
    """A metric of another object."""

    described_object: CrossVersionObjectReference
    metric: MetricIdentifier
    target: MetricTarget


class ExternalMetric(Model):
    """A metric of no object of the cluster, such as the length of a queue."""

    metric: MetricIdentifier
    target: MetricTarget


_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


class Metric(Model):
    """One metric; of several the autoscaler takes the one that asks for most workers."""

    model_config = ConfigDict(json_schema_extra=_by_type(_SOURCES))

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    resource: ResourceMetric | None = None
    container_resource: ContainerResourceMetric | None = None
    pods: PodsMetric | None = None
    object: ObjectMetric | None = None
    external: ExternalMetric | None = None


class ScalingPolicy(Model):
    """How many workers may come or go in a time."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(json_schema_extra=_between(1, 1_000_000, "pods or percent"))]
    period_seconds: Annotated[int, Field(json_schema_extra=_between(1, 1800, "seconds"))]


class ScalingRules(Model):
    """How fast the number of workers moves in one direction."""

    stabilization_window_seconds: (
        Annotated[int, Field(json_schema_extra=_between(0, 3600, "seconds"))] | None
    ) = None
    """For how long the most careful number of all those computed is taken."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    policies: Annotated[list[ScalingPolicy], Field(min_length=1, max_length=8)] | None = None
    tolerance: Quantity | None = None
    """What a metric may be off before anything is done, such as `0.1`."""


class Behavior(Model):
    """How fast the number of workers moves, up and down."""

    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


class Autoscaling(Model):
    """Bounds and metrics by which a HorizontalPodAutoscaler chooses the number of workers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "must not exceed maxReplicas",
                field=".minReplicas",
            )
        )
    )

    min_replicas: Workers = 1
    max_replicas: Workers
    metrics: Annotated[list[Metric], Field(max_length=8)] = Field(default_factory=list)
    """Without any, the use of CPUs at 80 percent of what is requested."""
    behavior: Behavior | None = None

    def clamped(self, replicas: int) -> int:
        """The nearest number of workers within the bounds."""
        return max(self.min_replicas, min(replicas, self.max_replicas))
