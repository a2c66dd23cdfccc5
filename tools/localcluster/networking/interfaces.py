"""The interfaces of a cluster's network namespace: a bridge for pods, a link to the machine.

Nothing here changes the machine's own firewall, forwarding or routes but for one interface with one
address and one route, and the kernel removes those with the namespace.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically
from localcluster.cluster.instance import Instance

BRIDGE = "cni0"
UPLINK = "machine0"
_ADDRESSES_KEPT_FOR_US = 9  # the first ones of the pods' range, the bridge's among them


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


def connect_machine(instance: Instance, pid: int) -> None:
    """Link the machine with the network namespace of process `pid` (run outside of it).

    Pods become reachable from the machine by their own addresses. The cluster's side gets its
    address last, so that `await_machine` returns when all is there.
    """
    name = instance.interface
    _ip("link", "add", name, "type", "veth", "peer", "name", UPLINK, "netns", str(pid))
    _ip("address", "add", f"{instance.machine_address}/{instance.link.prefixlen}", "dev", name)
    _ip("link", "set", name, "up")
    for reachable in (instance.pods, instance.services):
        _ip("route", "add", str(reachable), "via", str(instance.address), "dev", name, "onlink")


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
            _ip("link", "delete", instance.interface)
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
    _ip("address", "add", f"{instance.address}/{instance.link.prefixlen}", "dev", UPLINK)
    _ip("link", "set", UPLINK, "up")


def _interfaces() -> set[str]:
    listed = subprocess.run(
        ["ip", "-json", "link", "show"], check=True, capture_output=True, text=True
    )
    return {link["ifname"] for link in json.loads(listed.stdout)}


def hardware_address(instance: Instance) -> str:
    """Return a fixed, locally administered address for the bridge.

    Without one a bridge takes the lowest of its ports': it would change as pods come and go, and
    every other pod would send to the old one until its neighbour cache noticed, half a minute on.
    """
    return "02:00:" + instance.bridge_address.packed.hex(":")


def create_bridge(instance: Instance) -> None:
    """Make the pods' bridge (run inside of the namespace), with both of its addresses."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "address", hardware_address(instance), "type", "bridge")
    _ip("address", "add", f"{instance.bridge_address}/{instance.pods.prefixlen}", "dev", BRIDGE)
    _ip("address", "add", f"{instance.kubernetes_service}/32", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def write_cni_config(instance: Instance, folder: Path) -> None:
    """Write the one CNI configuration: bridge, host-local addresses, host ports."""
    addresses = {
        "subnet": str(instance.pods),
        "rangeStart": str(instance.pods[_ADDRESSES_KEPT_FOR_US + 1]),
        "gateway": str(instance.bridge_address),
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(instance.folder / "pod-addresses"),
            "ranges": [[addresses]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    config = {"cniVersion": "0.4.0", "name": project.NAME, "plugins": [bridge, ports]}
    write_atomically(folder / f"10-{project.NAME}.conflist", json.dumps(config, indent=1))
