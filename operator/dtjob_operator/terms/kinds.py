"""The kinds of objects that the operator talks about, and which of each it watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dtjob_api.model import API_GROUP, API_VERSION

Json = dict[str, Any]

JOB_LABEL = f"{API_GROUP}/job"
JOB_UID_LABEL = f"{API_GROUP}/job-uid"
ROLE_LABEL = f"{API_GROUP}/role"
WORKER_ACCOUNT = "dtjob-worker"
"""ServiceAccount, RoleBinding and ClusterRole of the workers of a namespace."""


@dataclass(frozen=True)
class Kind:
    """Where objects of one kind are found."""

    api_version: str
    name: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of the collection, or of one object.

        Without a namespace: of all namespaces, or of a kind that has none.
        """
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        return "/".join(parts)


JOB = Kind(API_VERSION, "DistributedTrainingJob", "distributedtrainingjobs")
LEDGER = Kind(API_VERSION, "PrivacyLedger", "privacyledgers")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
SERVICE = Kind("v1", "Service", "services")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
POD = Kind("v1", "Pod", "pods")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
EVENT = Kind("v1", "Event", "events")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
NODE = Kind("v1", "Node", "nodes")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

ALL = (
    JOB,
    LEDGER,
    STATEFUL_SET,
    SERVICE,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    POD,
    CLAIM,
    SERVICE_ACCOUNT,
    ROLE_BINDING,
    EVENT,
)
#: Children of which nobody else sets anything in the spec.
SPEC_IS_OURS = frozenset({STATEFUL_SET, SERVICE, NETWORK_POLICY, DISRUPTION_BUDGET, AUTOSCALER})
SPEC_SET_BY = "specSetBy"
"""Field of a stored child, beside its spec: who else has set something in that."""
_BY_NAME = {(kind.api_version, kind.name): kind for kind in (*ALL, LEASE)}


def kind_of(obj: Json) -> Kind:
    """The kind of an object that carries apiVersion and kind."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]


def typed(obj: Json, kind: Kind) -> Json:
    """The object with the apiVersion and kind that the items of a list lack."""
    return {"apiVersion": kind.api_version, "kind": kind.name, **obj}


@dataclass(frozen=True)
class Selection:
    """Which objects of a kind are watched."""

    kind: Kind
    namespace: str | None = None
    label_selector: str | None = None
    field_selector: str | None = None


WATCHED = (
    Selection(LEDGER),
    Selection(STATEFUL_SET, label_selector=JOB_UID_LABEL),
    Selection(SERVICE, label_selector=JOB_UID_LABEL),
    Selection(NETWORK_POLICY, label_selector=JOB_UID_LABEL),
    Selection(DISRUPTION_BUDGET, label_selector=JOB_UID_LABEL),
    Selection(AUTOSCALER, label_selector=JOB_UID_LABEL),
    Selection(POD, label_selector=JOB_UID_LABEL),
    Selection(CLAIM, label_selector=JOB_UID_LABEL),
    Selection(SERVICE_ACCOUNT, field_selector=f"metadata.name={WORKER_ACCOUNT}"),
    Selection(ROLE_BINDING, field_selector=f"metadata.name={WORKER_ACCOUNT}"),
)
