"""The interfaces of a node's network namespace: a bridge for pods, a link to the machine.

Nothing here changes the machine's own firewall, forwarding or routes but for one interface with one
address and one route, and the kernel removes those with the namespace.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node

BRIDGE = "cni0"
UPLINK = "machine0"
"""To the machine; of another node, to the first one (see localcluster.networking.lan)."""
_ADDRESSES_KEPT_FOR_US = 9  # the first ones of the pods' range, the bridge's among them


def ip(*arguments: str, enter: tuple[str, ...] = (), held: tuple[int, ...] = ()) -> None:
    """Call `ip`.

    Parameters
    ----------
    arguments
        Its own.
    enter
        What precedes it, such that it runs in another network namespace.
    held
        File descriptors that the call names.

    Raises
    ------
    ClusterError
        If it fails.
    """
    argv = [*enter, "ip", *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, pass_fds=held)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")


def connect_machine(instance: Instance, pid: int) -> None:
    """Link the machine with the network namespace of process `pid` (run outside of it).

    Pods become reachable from the machine by their own addresses. The cluster's side gets its
    address last, so that `await_machine` returns when all is there.
    """
    name = instance.interface
    ip("link", "add", name, "type", "veth", "peer", "name", UPLINK, "netns", str(pid))
    ip("address", "add", f"{instance.machine_address}/{instance.link.prefixlen}", "dev", name)
    ip("link", "set", name, "up")
    for reachable in (*(node.pods for node in nodes.every(instance)), instance.services):
        ip("route", "add", str(reachable), "via", str(instance.address), "dev", name, "onlink")


def disconnect_machine(instance: Instance, timeout: float = 120.0) -> None:
    """Remove what `connect_machine` made.

    The kernel does so by itself, some time after the last process in the namespace has ended.

    Raises
    ------
    ClusterError
        If the interface is still there after `timeout` seconds.
    """
    interface = Path("/sys/class/net") / instance.interface
    deadline = time.monotonic() + timeout
    while interface.exists():
        try:
            ip("link", "delete", instance.interface)
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def await_machine(instance: Instance, timeout: float) -> None:
    """Wait for the link (run inside of the namespace) and give this end its address.

    Raises
    ------
    ClusterError
        If `up` was interrupted and so never made the link.
    """
    deadline = time.monotonic() + timeout
    while UPLINK not in _interfaces():
        if time.monotonic() > deadline:
            raise ClusterError(f"no link to the machine within {timeout:.0f} s")
        time.sleep(0.02)
    ip("address", "add", f"{instance.address}/{instance.link.prefixlen}", "dev", UPLINK)
    ip("link", "set", UPLINK, "up")


def _interfaces() -> set[str]:
    listed = subprocess.run(
        ["ip", "-json", "link", "show"], check=True, capture_output=True, text=True
    )
    return {link["ifname"] for link in json.loads(listed.stdout)}


def _hardware_address(node: Node) -> str:
    """Return a fixed, locally administered address for the bridge.

    Without one a bridge takes the lowest of its ports': it would change as pods come and go, and
    every other pod would send to the old one until its neighbour cache noticed, half a minute on.
    """
    return "02:00:" + node.bridge_address.packed.hex(":")


def create_bridge(node: Node) -> None:
    """Make the pods' bridge (run inside of the namespace), the first node's with the API's too."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "address", _hardware_address(node), "type", "bridge")
    ip("address", "add", f"{node.bridge_address}/{node.pods.prefixlen}", "dev", BRIDGE)
    if node.is_first:
        ip("address", "add", f"{node.cluster.kubernetes_service}/32", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


def write_cni_config(node: Node) -> None:
    """Write the one CNI configuration: bridge, host-local addresses, host ports."""
    addresses = {
        "subnet": str(node.pods),
        "rangeStart": str(node.pods[_ADDRESSES_KEPT_FOR_US + 1]),
        "gateway": str(node.bridge_address),
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(_pod_addresses(node)),
            "ranges": [[addresses]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    config = {"cniVersion": "0.4.0", "name": project.NAME, "plugins": [bridge, ports]}
    # What is noted there are addresses of an earlier run's pods.
    shutil.rmtree(_pod_addresses(node), ignore_errors=True)
    write_atomically(
        node.folder / "cni" / f"10-{project.NAME}.conflist", json.dumps(config, indent=1)
    )


def _pod_addresses(node: Node) -> Path:
    return node.folder / "pod-addresses"
