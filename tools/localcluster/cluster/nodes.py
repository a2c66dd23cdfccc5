"""The nodes of one cluster: names, folders and addresses of each.

The first shares its namespaces with the control plane, and is there for as long as the cluster is.
Another one is a machine of its own, as far as the cluster can see: it has PID, mount and network
namespaces below the cluster's, and can be lost without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from localcluster.base import project
from localcluster.base.paths import images_folder
from localcluster.cluster.instance import Instance

MOST_NODES = 2


@dataclass(frozen=True)
class Node:
    """One node of a cluster.

    Parameters
    ----------
    cluster
        The cluster.
    number
        From 1.
    """

    cluster: Instance
    number: int

    @property
    def is_first(self) -> bool:
        """Whether it shares its namespaces with the control plane."""
        return self.number == 1

    @property
    def _suffix(self) -> str:
        return "" if self.is_first else f"-{self.number}"

    @property
    def name(self) -> str:
        """Name of the Kubernetes object."""
        return f"{project.NAME}-{self.cluster.name}{self._suffix}"

    def process(self, kind: str) -> str:
        """Return what a process of this node is called among the cluster's, e.g. `kubelet-2`."""
        return f"{kind}{self._suffix}"

    @property
    def machine(self) -> str:
        """Name of the process with which everything on this node ends; of all but the first."""
        return f"node-{self.number}"

    @property
    def folder(self) -> Path:
        """Where its kubelet and containerd keep things; gone after `down`."""
        return self.cluster.folder if self.is_first else self.cluster.folder / self.machine

    @property
    def status_file(self) -> Path:
        """What is reported of its processes; those of the control plane are the first node's."""
        return self.folder / "status.json"

    @property
    def content(self) -> Path:
        """containerd's root: images stay there, unpacked, from one run to the next."""
        # No name of a cluster has a dot.
        suffix = "" if self.is_first else f".{self.number}"
        return images_folder() / f"containerd-{self.cluster.name}{suffix}"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which its pods run."""
        return self.cluster.cgroup if self.is_first else f"{self.cluster.cgroup}/{self.machine}"

    @property
    def pods(self) -> IPv4Network:
        """Addresses of its pods; the first is its bridge's."""
        return self.cluster.networks[0 if self.is_first else self.number + 1]

    @property
    def bridge_address(self) -> IPv4Address:
        """The node, as its pods and the API server see it."""
        return self.pods[1]

    @property
    def lan_address(self) -> IPv4Address:
        """The node, as other nodes see it."""
        return self.cluster.lan[self.number]


def first(cluster: Instance) -> Node:
    """Return the node beside the control plane."""
    return Node(cluster, 1)


def others(cluster: Instance) -> list[Node]:
    """Return the nodes that can be lost."""
    return [Node(cluster, number) for number in range(2, cluster.node_count + 1)]


def every(cluster: Instance) -> list[Node]:
    """Return all nodes, the first one first."""
    return [first(cluster), *others(cluster)]
