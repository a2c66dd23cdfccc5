"""The addresses and names of one cluster, derived from its name and a slot.

A cluster lives in PID, mount and network namespaces of its own, so its ports, bridge and mounts
can't collide with anything. What the machine does see of it is one address block, one interface and
one cgroup, and those come from here.
"""

from __future__ import annotations

import json
import re
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.paths import clusters_folder
from localcluster.cluster.state import read_record

DEFAULT_NAME = project.NAME
CLUSTER_DOMAIN = "cluster.local"
_BLOCKS = list(IPv4Network("10.231.0.0/16").subnets(new_prefix=21))
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True)
class Instance:
    """One cluster of provider `local`.

    Parameters
    ----------
    name
        A DNS label of at most 30 characters.
    slot
        Index of its address block, 0 to 31.
    node_count
        How many nodes it has (see `localcluster.cluster.nodes`).
    """

    name: str
    slot: int
    node_count: int = 1

    @property
    def folder(self) -> Path:
        """State folder; gone after `down`."""
        return state_folder(self.name)

    @property
    def logs(self) -> Path:
        """Folder with the log of each process."""
        return self.folder / "logs"

    @property
    def failure_file(self) -> Path:
        """Why the daemon gave up; absent otherwise."""
        return self.folder / "failed"

    @property
    def holds(self) -> Path:
        """Folder in which a file named as a process keeps that process from running."""
        return self.folder / "hold"

    @property
    def interface(self) -> str:
        """The machine's end of the link into the cluster's network namespace."""
        return f"{project.NAME}{self.slot}"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which all pods run."""
        return f"/{project.NAME}-{self.name}"

    @property
    def block(self) -> IPv4Network:
        """All addresses of the cluster."""
        return _BLOCKS[self.slot]

    @property
    def networks(self) -> list[IPv4Network]:
        """The parts of its block: the first node's pods, Services, links, other nodes' pods."""
        return list(self.block.subnets(new_prefix=24))

    @property
    def services(self) -> IPv4Network:
        """Addresses of Services; the first is that of `kubernetes.default`."""
        return self.networks[1]

    @property
    def link(self) -> IPv4Network:
        """The two addresses between the machine and the cluster."""
        return next(self.networks[2].subnets(new_prefix=30))

    @property
    def lan(self) -> IPv4Network:
        """Addresses of nodes among themselves."""
        return list(self.networks[2].subnets(new_prefix=25))[1]

    @property
    def machine_address(self) -> IPv4Address:
        """The machine, as the cluster sees it."""
        return self.link[1]

    @property
    def address(self) -> IPv4Address:
        """The cluster and its API server, as the machine sees them."""
        return self.link[2]

    @property
    def bridge_address(self) -> IPv4Address:
        """The first node, its DNS server and its API server, as pods see them."""
        return self.networks[0][1]

    @property
    def kubernetes_service(self) -> IPv4Address:
        """Address of the Service `kubernetes` in namespace `default`."""
        return self.services[1]

    @property
    def server(self) -> str:
        """URL of the API server for clients on the machine."""
        return f"https://{self.address}:443"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"


def state_folder(name: str) -> Path:
    """Return the state folder of the cluster `name`."""
    return clusters_folder() / checked_name(name)


def checked_name(name: str) -> str:
    """Return `name` if a cluster can have it.

    Raises
    ------
    ClusterError
        If it is not a short DNS label.
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} can't be the name of a cluster",
            "Use lower-case letters, digits and inner dashes, at most 30 characters",
        )
    return name


def allocate(name: str) -> Instance:
    """Choose addresses for a new cluster that nothing on this machine uses.

    The search starts at a slot derived from the name, so a name usually keeps its addresses.

    Raises
    ------
    ClusterError
        If each of the 32 blocks overlaps with a route or another cluster.
    """
    taken = {
        record.slot
        for folder in clusters_folder().glob("*/")
        if folder.name != name and (record := read_record(folder)) is not None
    }
    routed = _routed_networks()
    first = zlib.crc32(checked_name(name).encode()) % len(_BLOCKS)
    for offset in range(len(_BLOCKS)):
        instance = Instance(name, (first + offset) % len(_BLOCKS))
        free = not any(instance.block.overlaps(network) for network in routed)
        if instance.slot not in taken and free:
            return instance
    raise ClusterError(
        "no address block of 10.231.0.0/16 is free: each overlaps with a route of this machine or "
        "with another cluster",
        "End clusters that you no longer need (`python -m localcluster down --name NAME`)",
    )


def _routed_networks() -> list[IPv4Network]:
    listed = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return routed_networks(json.loads(listed or "[]"))


def routed_networks(routes: Iterable[dict[str, object]]) -> list[IPv4Network]:
    """Return the destinations in the answer of `ip -json route`, the default routes left out."""
    found = []
    for route in routes:
        destination = str(route.get("dst", "default"))
        if destination in ("default", "0.0.0.0/0"):
            continue
        network = ip_network(destination, strict=False)
        if isinstance(network, IPv4Network):
            found.append(network)
    return found
