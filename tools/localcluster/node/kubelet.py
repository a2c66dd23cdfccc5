"""The kubelet, with nothing shared with the machine's own."""

from __future__ import annotations

import json

from localcluster.base.files import write_atomically
from localcluster.cluster.component import Component, answers
from localcluster.cluster.instance import CLUSTER_DOMAIN, Instance
from localcluster.install import binaries
from localcluster.node.ctr import SOCKET


def _config(instance: Instance) -> dict[str, object]:
    """Return the KubeletConfiguration.

    A machine for development may have swap, cgroup v1, a nearly full disk and no right to change
    kernel parameters; none of it keeps this kubelet from running pods.
    """
    pki, folder = instance.folder / "pki", instance.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDNS": [str(instance.bridge_address)],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(folder / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": instance.cgroup,
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


def component(instance: Instance) -> Component:
    """Write the kubelet's configuration and return it."""
    folder = instance.folder
    write_atomically(folder / "resolv.conf", "")
    write_atomically(folder / "kubelet.json", json.dumps(_config(instance), indent=1))
    argv = [
        str(binaries.path(binaries.KUBERNETES, "kubelet")),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'pki'}",
        f"--hostname-override={instance.node}",
        f"--node-ip={instance.bridge_address}",
    ]
    return Component("kubelet", argv, answers("http://127.0.0.1:10248/healthz"))
