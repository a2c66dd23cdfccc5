"""The kubelet, with nothing shared with the machine's own."""

from __future__ import annotations

import json
import signal

from localcluster.base.files import write_atomically
from localcluster.cluster.component import Component, answers
from localcluster.cluster.instance import CLUSTER_DOMAIN
from localcluster.cluster.nodes import Node
from localcluster.install import binaries
from localcluster.node.ctr import SOCKET


def _config(node: Node) -> dict[str, object]:
    """Return the KubeletConfiguration.

    A machine for development may have swap, cgroup v1, a nearly full disk and no right to change
    kernel parameters; none of it keeps this kubelet from running pods.
    """
    cluster, folder = node.cluster, node.folder
    pki, certificate = cluster.folder / "pki", node.process("kubelet")
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{certificate}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{certificate}.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDNS": [str(cluster.bridge_address)],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(folder / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "readOnlyPort": 0,
        "serializeImagePulls": False,
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    }
    if cluster.node_count > 1:
        # Renewed four times as often. A node is lost after as long without (see
        # localcluster.control.controlplane), so three renewals may fail.
        config["nodeLeaseDurationSeconds"] = 20
    return config


def component(node: Node) -> Component:
    """Write the kubelet's configuration and return it.

    It is ended as a machine's end would end it: without a word to the API server.
    """
    name, folder, cluster = node.process("kubelet"), node.folder, node.cluster
    write_atomically(folder / "resolv.conf", "")
    write_atomically(folder / "kubelet.json", json.dumps(_config(node), indent=1))
    argv = [
        str(binaries.path(binaries.KUBERNETES, "kubelet")),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={cluster.folder / f'{name}.kubeconfig'}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={cluster.folder / 'pki'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.bridge_address}",
    ]
    ready = answers("http://127.0.0.1:10248/healthz")
    return Component(name, argv, ready, ended_by=signal.SIGKILL)
