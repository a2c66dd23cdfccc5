"""Provider `local`: real Kubernetes binaries, containerd and a kubelet, on a bare machine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.files import locked
from localcluster.base.namespaces import child, first_member, in_cgroup
from localcluster.base.paths import clusters_folder
from localcluster.base.progress import Progress
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance, allocate, checked_name, state_folder
from localcluster.cluster.nodes import Node
from localcluster.cluster.state import Process, Record, boot_id, read_record, write_record
from localcluster.control import audit, metrics
from localcluster.images import buildah
from localcluster.images.built import LOCAL_NAME, BuiltImage
from localcluster.install import binaries, packages
from localcluster.networking import interfaces
from localcluster.node import cgroups, ctr, linking
from localcluster.providers.protocol import Capability, Status
from localcluster.run import holding, launch, process_manager

_LOCK_SECONDS = 600.0  # longer than an `up` of another process may take
_STOP_SECONDS = 8.0
_KILLED_SECONDS = 120.0
_METRICS_SECONDS = 120.0


class LocalProvider:
    """A cluster of one node or two whose processes are below one daemon.

    Parameters
    ----------
    name
        Two clusters with different names run side by side.
    progress
        Where to show what happens.
    """

    kind = "local"
    capabilities = frozenset(
        {
            Capability.IMAGES,
            Capability.STORAGE,
            Capability.POD_ADDRESSES,
            Capability.NODE_PROCESSES,
            Capability.CONTROL_PLANE,
        }
    )

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = checked_name(name)
        self._progress = progress

    def obstacle(self) -> str | None:
        """Return what this machine lacks that `up` could not get."""
        try:
            packages.require_root("a cluster of real binaries")
            for family in binaries.FAMILIES:
                binaries.require_buildable(family)
        except CannotRunHere as error:
            return str(error)
        absent = packages.missing(packages.NODE_PROGRAMS)
        if absent and shutil.which("apt-get") is None:
            return f"this machine lacks {', '.join(absent)} and has no apt-get to install them"
        return None

    def prepare(self) -> None:
        """Install the packages of the node and of the image builder."""
        packages.require_root("a cluster of real binaries")
        packages.ensure(self._progress, packages.NODE_PROGRAMS + packages.IMAGE_PROGRAMS)

    def up(self, *, node_count: int = 1) -> None:
        """Start the cluster and return when pods can run on each of its nodes.

        Parameters
        ----------
        node_count
            One, or two: the second can be lost, by `kill_node`. A cluster that runs is as good with
            more than are asked for.

        Raises
        ------
        ClusterError
            If it does not start, or runs with fewer nodes.
        """
        packages.require_root("a cluster of real binaries")
        packages.ensure(self._progress, packages.NODE_PROGRAMS)
        binaries.ensure(self._progress)
        with self._locked():
            record = read_record(state_folder(self.name))
            if record is not None and not (record.running and record.linked):
                self._progress.say(f"  removing what an earlier run of {self.name} left")
                self._clean(record)
                record = None
            if record is not None and record.nodes < node_count:
                raise ClusterError(
                    f"cluster {self.name} runs with {record.nodes} node, and {node_count} are "
                    "asked for",
                    f"End it first (`python -m localcluster down --name {self.name}`)",
                )
            key = None if record else _up_key(node_count)
            with self._progress.stage(f"cluster {self.name}", key), self._ended_on_failure():
                instance = self._instance(record) if record else self._start(node_count)
                launch.await_usable(instance)

    @contextmanager
    def _ended_on_failure(self) -> Iterator[None]:
        """End a cluster that does not work and leave its logs."""
        try:
            yield
        except ClusterError:
            record = read_record(state_folder(self.name))
            if record is not None and record.holder is not None and record.running:
                _end(record.holder)
            raise

    def _start(self, node_count: int) -> Instance:
        lock, tell = clusters_folder() / ".addresses.lock", self._progress.say
        with locked(lock, timeout=120, holder="choosing addresses", tell=tell):
            instance = replace(allocate(self.name), node_count=node_count)
            record = Record(slot=instance.slot, boot=boot_id(), nodes=node_count)
            instance.folder.mkdir(parents=True, mode=0o711, exist_ok=True)
            write_record(instance.folder, record)
        cgroups.create(instance.cgroup)
        interfaces.connect_machine(instance, launch.daemon(instance))
        write_record(instance.folder, replace(record, linked=True))
        return instance

    def down(self, *, purge: bool = False) -> None:
        """Remove processes, interface, cgroups and state, after a crash as well."""
        packages.require_root("removing a cluster")
        with self._locked():
            record = read_record(state_folder(self.name))
            if record is not None:
                with self._progress.stage(f"removing cluster {self.name}"):
                    self._clean(record)
            if purge:
                for node in nodes.every(Instance(self.name, 0, nodes.MOST_NODES)):
                    shutil.rmtree(node.content, ignore_errors=True)

    def _instance(self, record: Record) -> Instance:
        return Instance(self.name, record.slot, record.nodes)

    def _clean(self, record: Record) -> None:
        instance = self._instance(record)
        if record.holder is not None and record.running:
            _end(record.holder)
        interfaces.disconnect_machine(instance)
        cgroups.remove(instance.cgroup)
        shutil.rmtree(instance.folder)

    def status(self) -> Status:
        """Show what runs, from the daemon's own notes."""
        record = read_record(state_folder(self.name))
        if record is None:
            return Status(False, f"cluster {self.name}: not there")
        instance = self._instance(record)
        if not record.running:
            return Status(False, f"cluster {self.name}: its daemon ended; `down` removes the rest")
        ready = launch.unusable_because(instance) is None
        details = {
            "kubeconfig": str(instance.kubeconfig),
            "API server": instance.server,
            "nodes": ", ".join(node.name for node in nodes.every(instance)),
            "logs": str(instance.logs),
        }
        for name, component in process_manager.noted(instance).items():
            state = f"pid {component['pid']}" if component["pid"] else component["ended"]
            starts = f", started {component['starts']} times" if component["starts"] > 1 else ""
            details[name] = f"{state}{starts}"
        state = "running" if ready else "starting"
        return Status(ready, f"cluster {self.name} (provider local): {state}", details)

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self._running().kubeconfig

    def kubectl(self) -> Path:
        """Return the kubectl of the cluster's own version."""
        binaries.ensure(self._progress, (binaries.only(binaries.KUBERNETES, "kubectl"),))
        return binaries.path(binaries.KUBERNETES, "kubectl")

    def build_image(
        self, name: str, dockerfile: Path, context: Path, build_args: Mapping[str, str]
    ) -> BuiltImage:
        """Build with buildah, on a base image made here where the Dockerfile asks for one."""
        return buildah.build(self._progress, name, dockerfile, context, build_args)

    def load_image(self, image: BuiltImage) -> str:
        """Link its layers into the containerd of each node that runs."""
        title, name = f"loading image {image.name}", LOCAL_NAME + image.name
        with self._locked(), self._progress.stage(title, f"load {image.name}"):
            for other in nodes.others(self._running()):
                if _is_on(other):
                    linking.load(ctr.Client(self.daemon(other.number)), buildah.stored(image), name)
            return linking.load(ctr.Client(self.daemon()), buildah.stored(image), name)

    def stop_component(self, component: str) -> None:
        """End a process of the control plane and keep it down.

        Parameters
        ----------
        component
            A name that `status` shows, e.g. `kube-apiserver`.
        """
        holding.hold(self._running(), component)

    def start_component(self, component: str) -> None:
        """Let a process that `stop_component` ended run again."""
        holding.let_go(self._running(), component)

    def kill_node(self, number: int, *, power_off: bool = False) -> None:
        """Lose a node, without a word from it to anybody; nothing happens if it is lost already.

        Parameters
        ----------
        number
            Of the node, from 2: the first one is the cluster.
        power_off
            Whether its pods, its containerd and its network end too. Otherwise only its kubelet
            does, and its pods go on.

        Raises
        ------
        ClusterError
            If the cluster has no such node.
        """
        node = self._other(number)
        if not _is_on(node):
            return
        if power_off:
            holding.cut_power(node, Process.of(self.daemon(number)))
        else:
            holding.hold(node.cluster, node.process("kubelet"))

    def start_node(self, number: int) -> None:
        """Let a node that `kill_node` took away run again; it is ready some seconds later."""
        holding.boot(self._other(number))

    def _other(self, number: int) -> Node:
        instance = self._running()
        for node in nodes.others(instance):
            if node.number == number:
                return node
        raise ClusterError(
            f"cluster {self.name} has no node {number} that can be lost",
            "The first one is the cluster itself; a second comes with `python -m localcluster up "
            f"--provider local --name {self.name} --nodes 2`, after `down`",
        )

    def enable_metrics(self) -> None:
        """Have metrics-server run, and return when it knows what the node uses.

        Raises
        ------
        ClusterError
            If it does not within some minutes.
        """
        instance = self._running()
        binaries.ensure(self._progress, (binaries.METRICS_SERVER,))
        with self._progress.stage("metrics of pods and nodes", "metrics"):
            text = json.dumps(_listed(metrics.objects(instance)))
            applied = self._kubectl("apply", "--filename=-", text=text)
            if applied.returncode != 0:
                raise ClusterError(f"metrics-server can't be announced: {applied.stderr.strip()}")
            self.start_component(metrics.NAME)
            deadline = time.monotonic() + _METRICS_SECONDS
            while not self._has_metrics():
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"metrics-server knows of no node after {_METRICS_SECONDS:.0f} s; see "
                        f"{instance.logs / metrics.NAME}.log"
                    )
                time.sleep(0.5)

    def _has_metrics(self) -> bool:
        found = self._kubectl("get", "--raw=/apis/metrics.k8s.io/v1beta1/nodes")
        return found.returncode == 0 and bool(json.loads(found.stdout)["items"])

    def _kubectl(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        argv = [str(self.kubectl()), f"--kubeconfig={self.kubeconfig()}", *arguments]
        return subprocess.run(argv, check=False, input=text, capture_output=True, text=True)

    def machine_address(self) -> str:
        """Return the address under which pods and the API server reach this machine."""
        return str(self._running().machine_address)

    def audit_log(self) -> Path:
        """Return the file with what accounts of pods asked the API server for, an event a line."""
        return audit.log(Instance(self.name, 0))

    def pod_processes(self, pod_uid: str) -> list[Process]:
        """Return the processes of a pod, its sandbox's left out, oldest first.

        Parameters
        ----------
        pod_uid
            The pod's `metadata.uid`.
        """
        self._running()
        found = []
        for pid in in_cgroup(f"/pod{pod_uid}/"):
            with suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name != "pause":
                    found.append(Process.of(pid))
        return sorted(found, key=lambda process: (process.start_ticks, process.pid))

    def _running(self) -> Instance:
        record = read_record(state_folder(self.name))
        if record is None or not record.running:
            raise ClusterError(
                f"cluster {self.name} does not run",
                f"Start it with `python -m localcluster up --name {self.name}`",
            )
        return self._instance(record)

    def daemon(self, number: int = 1) -> int:
        """Return PID 1 of a node as this process numbers it; the first one's is the cluster's."""
        instance = self._running()
        record = read_record(state_folder(self.name))
        daemon = first_member(record.holder.pid) if record and record.holder else None
        if daemon is not None and number > 1:
            machine = process_manager.pid(instance, self._other(number).machine)
            holder = child(daemon, machine) if machine else None
            daemon = first_member(holder) if holder else None
        if daemon is None:
            raise ClusterError(f"node {number} of cluster {self.name} does not run")
        return daemon

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = clusters_folder() / f".{self.name}.lock"
        holder, tell = f"changing cluster {self.name}", self._progress.say
        with locked(lock, timeout=_LOCK_SECONDS, holder=holder, tell=tell):
            yield


def _is_on(node: Node) -> bool:
    return process_manager.pid(node.cluster, node.machine) is not None


def _up_key(node_count: int) -> str:
    return "cluster up" if node_count == 1 else f"cluster up with {node_count} nodes"


def _listed(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _end(holder: Process) -> None:
    """End a cluster's PID namespace: asked first, then by force, and return when it is empty."""
    daemon = None
    with suppress(OSError):
        if (first := first_member(holder.pid)) is not None:
            daemon = Process.of(first)
            daemon.kill(signal.SIGTERM)
    holder.await_end(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        holder.kill()
    # The kernel lets PID 1 end only after all others; who goes on earlier meets some that write.
    if daemon is not None:
        daemon.await_end(_KILLED_SECONDS)
