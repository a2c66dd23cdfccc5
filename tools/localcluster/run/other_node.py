"""PID 1 of a node that can be lost: its containerd, kubelet and enforcer of NetworkPolicies.

Run by the cluster's daemon, in PID, mount and network namespaces below the cluster's, as `python -m
localcluster.run.other_node NAME SLOT NODES NUMBER`. SIGKILL of the process that holds those takes
away all that runs here and its network, as a machine's power would. The next start is a boot: the
disk is what it was, and nothing runs.
"""

from __future__ import annotations

import signal
import sys

from localcluster.base.errors import ClusterError
from localcluster.base.paths import cache_folder
from localcluster.cluster.component import Component
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node
from localcluster.networking import enforcer, interfaces, lan
from localcluster.node import cgroups, containerd, kubelet, view
from localcluster.run.process_manager import GRACE_SECONDS, ProcessManager

_FIRST_NETWORK = 9  # any file descriptor that nobody uses


def component(node: Node) -> Component:
    """Return the process that holds a node's namespaces, with which everything on it ends."""
    argv = ["sh", "-c", f'exec "$@" {_FIRST_NETWORK}</proc/self/ns/net', "sh"]
    argv += ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child=SIGKILL"]
    argv += ["--propagation", "private", "--mount-proc"]
    argv += [sys.executable, "-m", "localcluster.run.other_node"]
    cluster = node.cluster
    argv += [cluster.name, str(cluster.slot), str(cluster.node_count), str(node.number)]
    return Component(node.machine, argv, ended_by=signal.SIGKILL)


def _boot(node: Node) -> None:
    spare = node.folder / "view"
    spare.mkdir(parents=True, exist_ok=True)
    view.uncover()
    view.make_private(cache_folder(), spare)
    cgroups.remove(node.cgroup)  # of pods that ended with the last run
    cgroups.create(node.cgroup)
    interfaces.create_bridge(node)
    interfaces.write_cni_config(node)
    lan.join(node, _FIRST_NETWORK)


def _run(node: Node) -> None:
    processes = ProcessManager(node)
    _boot(node)
    runtime = containerd.component(node)
    try:
        containerd.sweep(node)
        processes.start(runtime)
        processes.await_ready(runtime)
        containerd.import_pause()
        processes.start(enforcer.component(node))
        processes.start(kubelet.component(node))
        processes.keep()
    finally:
        processes.end(runtime.name, processes.pid(runtime.name), GRACE_SECONDS)


def main() -> None:
    """Run the node that the command line names."""
    cluster = Instance(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    try:
        _run(Node(cluster, int(sys.argv[4])))
    except ClusterError as error:
        sys.exit(f"error: {error}")  # into its log; the daemon starts it again


if __name__ == "__main__":
    main()
