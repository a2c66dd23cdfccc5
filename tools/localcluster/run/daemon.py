"""PID 1 of a cluster: starts its processes, starts again the ones that end, ends with all of them.

Run by `up` in PID, mount and network namespaces of its own as `python -m localcluster.run.daemon
NAME SLOT NODES`. The kernel ends every process in the PID namespace, pods and other nodes included,
when this one ends, whatever it ends of, and takes the mounts and interfaces along; so nothing
depends on this module ending well.
"""

from __future__ import annotations

import sys

from localcluster.base.errors import ClusterError
from localcluster.base.namespaces import first_member
from localcluster.base.paths import cache_folder
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.control import audit, certificates, controlplane, dns, metrics, volumes
from localcluster.networking import enforcer, interfaces, lan
from localcluster.node import containerd, kubelet, view
from localcluster.run import other_node
from localcluster.run.process_manager import GRACE_SECONDS, ProcessManager

_LINK_SECONDS = 120.0


class Daemon:
    """The processes of one cluster and what keeps them running."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._processes = ProcessManager(nodes.first(instance))

    def run(self) -> None:
        """Bring everything up, then keep it up until SIGTERM."""
        try:
            self._bring_up()
            self._processes.keep()
        finally:
            self._end_runtimes()

    def _bring_up(self) -> None:
        instance, node = self._instance, nodes.first(self._instance)
        start, await_ready = self._processes.start, self._processes.await_ready
        interfaces.create_bridge(node)
        lan.create(instance)
        interfaces.write_cni_config(node)
        certificates.write_all(instance)
        audit.write_policy(instance)
        store = controlplane.etcd(instance)
        start(store)
        interfaces.await_machine(instance, _LINK_SECONDS)
        await_ready(store)
        api_server = controlplane.api_server(instance)
        start(api_server)
        containerd.sweep(node)
        runtime = containerd.component(node)
        start(runtime)
        await_ready(runtime)
        containerd.import_pause()
        await_ready(api_server)
        for other in nodes.others(instance):
            start(other_node.component(other))
        start(enforcer.component(node))
        start(volumes.component(instance))
        start(controlplane.controller_manager(instance))
        start(controlplane.scheduler(instance))
        start(kubelet.component(node))
        (instance.holds / metrics.NAME).touch()  # until somebody asks for it
        start(metrics.component(instance))
        names = dns.server(instance)
        start(names)
        await_ready(names)

    def _end_runtimes(self) -> None:
        """End each containerd; the kernel ends all others with this process."""
        processes = self._processes
        for other in nodes.others(self._instance):
            holder = processes.pid(other.machine)
            inside = first_member(holder) if holder else None
            processes.end(other.machine, inside, GRACE_SECONDS + 1)  # which end theirs
        runtime = nodes.first(self._instance).process("containerd")
        processes.end(runtime, processes.pid(runtime), GRACE_SECONDS)


def main() -> None:
    """Run the cluster that the command line names."""
    instance = Instance(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    spare = instance.folder / "view"
    spare.mkdir(exist_ok=True)
    try:
        view.make_private(cache_folder(), spare)
        Daemon(instance).run()
    except ClusterError as error:
        instance.failure_file.write_text(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
