"""Resource metrics of pods and nodes: metrics-server, which a HorizontalPodAutoscaler asks.

Most clusters need none, so it is held until somebody asks for it. It runs beside the control plane
and is reached by the API server through a Service without selector.
"""

from __future__ import annotations

import base64
from typing import Any

from localcluster.cluster.component import Component
from localcluster.cluster.instance import Instance
from localcluster.install import binaries

NAME = "metrics-server"
USER = f"system:{NAME}"
HOST = f"{NAME}.kube-system.svc"
_PORT = 4443
_RESOLUTION_SECONDS = 10  # its least; a kubelet's figures are not much younger
_GROUP = "metrics.k8s.io"
_RBAC = "rbac.authorization.k8s.io"


def component(instance: Instance) -> Component:
    """Return metrics-server; to the API server and the kubelet it is a user of its own."""
    pki, config = instance.folder / "pki", instance.folder / f"{NAME}.kubeconfig"
    argv = [
        str(binaries.path(binaries.METRICS_SERVER, NAME)),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--bind-address={instance.bridge_address}",
        f"--secure-port={_PORT}",
        f"--tls-cert-file={pki / 'metrics-server.crt'}",
        f"--tls-private-key-file={pki / 'metrics-server.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--metric-resolution={_RESOLUTION_SECONDS}s",
        f"--kubelet-request-timeout={_RESOLUTION_SECONDS - 2}s",
    ]
    return Component(NAME, argv)


def objects(instance: Instance) -> list[dict[str, Any]]:
    """Return by what the API server finds it, what it may ask, and who may ask it."""
    authority = (instance.folder / "pki" / "ca.crt").read_text()
    address = str(instance.bridge_address)
    return [
        *announced(f"v1beta1.{_GROUP}", NAME, "kube-system", (address, _PORT), authority),
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": "aggregated-metrics-reader",
                "labels": {
                    f"rbac.authorization.k8s.io/aggregate-to-{role}": "true"
                    for role in ("admin", "edit", "view")
                },
            },
            "rules": [
                {
                    "apiGroups": [_GROUP],
                    "resources": ["pods", "nodes"],
                    "verbs": ["get", "list", "watch"],
                }
            ],
        },
        *_rights(),
    ]


def announced(
    api: str, name: str, namespace: str, endpoint: tuple[str, int], authority: str
) -> list[dict[str, Any]]:
    """Return by what an API server finds an API that something else serves.

    Parameters
    ----------
    api
        Version and group, as in `v1beta1.metrics.k8s.io`.
    name, namespace
        Of the Service; the server's certificate is of `<name>.<namespace>.svc`.
    endpoint
        Address and port.
    authority
        Who signed that certificate, as PEM text.
    """
    address, port = endpoint
    version, _, group = api.partition(".")
    metadata = {"name": name, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [{"port": port}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": metadata,
                "caBundle": base64.b64encode(authority.encode()).decode(),
            },
        },
    ]


def _rights() -> list[dict[str, Any]]:
    """Return the rights that its own project's manifests give it: to read, and to ask who asks."""
    rules: list[dict[str, Any]] = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    role = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER},
        "rules": rules,
    }
    delegator = f"{NAME}:system:auth-delegator"
    reader = "extension-apiserver-authentication-reader"
    return [
        role,
        _binding("ClusterRoleBinding", {"name": USER}, "ClusterRole", USER),
        _binding("ClusterRoleBinding", {"name": delegator}, "ClusterRole", "system:auth-delegator"),
        _binding(
            "RoleBinding",
            {"name": f"{NAME}-auth-reader", "namespace": "kube-system"},
            "Role",
            reader,
        ),
    ]


def _binding(kind: str, metadata: dict[str, str], role_kind: str, role: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": USER}],
    }
