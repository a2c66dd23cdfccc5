"""Processes of a running cluster that somebody holds: ended, and kept down until let go of.

A file named as the process says so to the PID 1 that tends to it.
"""

from __future__ import annotations

import time

from localcluster.base.errors import ClusterError
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node
from localcluster.cluster.state import Process
from localcluster.run import process_manager

_CHANGE_SECONDS = 120.0


def hold(cluster: Instance, name: str) -> None:
    """End a process, and return when it has ended.

    Raises
    ------
    ClusterError
        If the cluster has none of this name, or it does not end within some minutes.
    """
    if name not in process_manager.noted(cluster):
        raise ClusterError(f"the cluster has no component {name!r}")
    (cluster.holds / name).touch()
    _await(cluster, name, running=False)


def let_go(cluster: Instance, name: str) -> None:
    """Let a process run again, and return when it does.

    Raises
    ------
    ClusterError
        If it does not start within some minutes.
    """
    (cluster.holds / name).unlink(missing_ok=True)
    _await(cluster, name, running=True)


def _await(cluster: Instance, name: str, *, running: bool) -> None:
    deadline = time.monotonic() + _CHANGE_SECONDS
    while (process_manager.pid(cluster, name) is not None) != running:
        if time.monotonic() > deadline:
            change = "start" if running else "end"
            raise ClusterError(f"{name} did not {change} within {_CHANGE_SECONDS:.0f} s")
        time.sleep(0.05)


def cut_power(node: Node, last: Process) -> None:
    """End everything on a node, and return when nothing of it is left.

    Parameters
    ----------
    node
        Not the first one.
    last
        PID 1 of the node, which the kernel lets end after all others.
    """
    hold(node.cluster, node.machine)
    last.await_end(_CHANGE_SECONDS)
    node.status_file.unlink(missing_ok=True)


def boot(node: Node) -> None:
    """Let a node run again, and return when its kubelet does; what runs already goes on."""
    kubelet = node.process("kubelet")
    (node.cluster.holds / kubelet).unlink(missing_ok=True)
    let_go(node.cluster, node.machine)
    _await(node.cluster, kubelet, running=True)
