"""The network between nodes: a bridge on the first one, into which the others are plugged.

It stays when another node ends. So who sends there meets what a machine without power gives: no
answer, and after some seconds "no route to host".
"""

from __future__ import annotations

import time
from contextlib import suppress

from localcluster.base.errors import ClusterError
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node
from localcluster.networking.interfaces import UPLINK, ip

_SWITCH = "nodes0"
_PLUG_SECONDS = 120.0


def create(cluster: Instance) -> None:
    """Make it where there are other nodes (run in the first one's network namespace)."""
    if not nodes.others(cluster):
        return
    address = nodes.first(cluster).lan_address
    ip("link", "add", _SWITCH, "type", "bridge")
    ip("address", "add", f"{address}/{cluster.lan.prefixlen}", "dev", _SWITCH)
    ip("link", "set", _SWITCH, "up")
    for node in nodes.others(cluster):
        ip("route", "add", str(node.pods), "via", str(node.lan_address), "dev", _SWITCH)


def join(node: Node, first: int) -> None:
    """Plug another node in (run in its network namespace), and send all that is not for it there.

    Parameters
    ----------
    node
        The node.
    first
        File descriptor of the first node's network namespace.

    Raises
    ------
    ClusterError
        If the kernel does not let go of what was plugged in before within some minutes.
    """
    plug, there = f"node{node.number}", f"/proc/self/fd/{first}"
    enter = ("nsenter", f"--net={there}")
    deadline = time.monotonic() + _PLUG_SECONDS
    while True:
        try:
            peer = ("peer", "name", plug, "netns", there)
            ip("link", "add", UPLINK, "type", "veth", *peer, held=(first,))
            break
        except ClusterError:  # the kernel removes that of an ended namespace some time later
            if time.monotonic() > deadline:
                raise
            with suppress(ClusterError):
                ip("link", "delete", plug, enter=enter, held=(first,))
            time.sleep(0.05)
    ip("link", "set", plug, "master", _SWITCH, "up", enter=enter, held=(first,))
    ip("address", "add", f"{node.lan_address}/{node.cluster.lan.prefixlen}", "dev", UPLINK)
    ip("link", "set", UPLINK, "up")
    ip("route", "add", "default", "via", str(nodes.first(node.cluster).lan_address))
