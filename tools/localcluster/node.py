"""The node: kubelet and containerd, with nothing shared with the machine's own."""

from __future__ import annotations

import json
from pathlib import Path

from localcluster import binaries, pause
from localcluster.component import Component, answers
from localcluster.instance import CLUSTER_DOMAIN, Instance
from localcluster.state import write_atomically

CNI_PLUGINS = Path("/usr/lib/cni")
CRI_PLUGIN = "io.containerd.grpc.v1.cri"
# /run is the cluster's own (see localcluster.view), so these are private though the names are not.
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")


def containerd_config(instance: Instance, *, with_cri: bool = True) -> str:
    """Return containerd's configuration.

    Parameters
    ----------
    instance
        The cluster.
    with_cri
        False to start it without its CRI plugin, for :mod:`localcluster.containers`.

    Notes
    -----
    ``restrict_oom_score_adj``: without CAP_SYS_RESOURCE (many containers and sandboxes lack it)
    runc can't lower a process's score, and each sandbox fails with "can't get final child's PID
    from pipe: EOF".

    ``discard_unpacked_layers``: a layer is kept unpacked only, since torch's alone takes 5 GB.
    """
    disabled = [] if with_cri else [CRI_PLUGIN]
    return f"""version = 2
root = {json.dumps(str(instance.content))}
state = "/run/containerd"
disabled_plugins = {json.dumps(disabled)}

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."{CRI_PLUGIN}"]
  sandbox_image = "{pause.REFERENCE}"
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins."{CRI_PLUGIN}".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = {json.dumps(str(instance.folder / "cni"))}

  [plugins."{CRI_PLUGIN}".containerd]
    discard_unpacked_layers = true

    [plugins."{CRI_PLUGIN}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def containerd_argv(instance: Instance, *, with_cri: bool = True) -> list[str]:
    """Write containerd's configuration and return its command line."""
    config = instance.folder / ("containerd.toml" if with_cri else "containerd-sweep.toml")
    write_atomically(config, containerd_config(instance, with_cri=with_cri))
    return ["containerd", "--config", str(config), "--log-level", "warn"]


def containerd(instance: Instance) -> Component:
    """Return containerd; it serves once its socket is there."""
    return Component("containerd", containerd_argv(instance), CONTAINERD_SOCKET.is_socket)


def kubelet_config(instance: Instance) -> dict[str, object]:
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
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
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


def kubelet(instance: Instance) -> Component:
    """Write the kubelet's configuration and return it."""
    folder = instance.folder
    write_atomically(folder / "resolv.conf", "")
    write_atomically(folder / "kubelet.json", json.dumps(kubelet_config(instance), indent=1))
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
