"""Starting a cluster's daemon in namespaces of its own and waiting until the cluster is usable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from localcluster.base.errors import ClusterError
from localcluster.base.namespaces import entered
from localcluster.base.paths import import_folder
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node
from localcluster.cluster.state import Process, holder_file, read_record
from localcluster.install import binaries, packages
from localcluster.run import process_manager

_ENTER_SECONDS = 120.0
_USABLE_SECONDS = 400.0
_TOO_MANY_STARTS = 8
_LOG_LINES = 12


def daemon(instance: Instance) -> int:
    """Start the daemon and return the PID of the process that holds its namespaces.

    The holder stays outside of the PID namespace. When it ends, the daemon gets SIGKILL; when the
    daemon ends, the kernel ends everything else in there. Before all that it writes itself down, so
    that even an `up` that dies right here leaves nothing that `down` would not know of.
    """
    logs = instance.logs
    logs.mkdir(parents=True, exist_ok=True)
    note = holder_file(instance.folder)
    write_note = 'cat /proc/$$/stat > "$0.new" && mv "$0.new" "$0" && exec "$@"'
    argv = ["sh", "-c", write_note, str(note)]
    argv += ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child=SIGKILL"]
    argv += ["--propagation", "private", "--mount-proc"]
    argv += [sys.executable, "-m", "localcluster.run.daemon", instance.name, str(instance.slot)]
    argv += [str(instance.node_count)]
    with (logs / "daemon.log").open("ab") as output:
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", *argv],  # so that it is nobody's child
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + _ENTER_SECONDS
    while time.monotonic() < deadline:
        if note.exists():
            holder = Process.parse(note.read_text())
            if not holder.alive:
                break
            if entered(holder.pid):
                return holder.pid
        time.sleep(0.01)
    raise ClusterError(f"the cluster's namespaces can't be made: {_tail(logs / 'daemon.log')}")


def _environment() -> dict[str, str]:
    """Return this process's environment, without proxies: everything in a cluster is near."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return kept | {"PYTHONPATH": str(import_folder()), "PATH": packages.search_path()}


def await_usable(instance: Instance) -> None:
    """Return when the API server answers, all nodes are ready and claims can be bound.

    Raises
    ------
    ClusterError
        If the daemon ends or a process keeps ending, with the end of its log.
    """
    deadline = time.monotonic() + _USABLE_SECONDS
    while (reason := unusable_because(instance)) is not None:
        _raise_if_failed(instance)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster {instance.name} is not usable after {_USABLE_SECONDS:.0f} s: {reason}",
                f"Its logs are in {instance.logs}",
            )
        time.sleep(0.2)


def _raise_if_failed(instance: Instance) -> None:
    logs = instance.logs
    record = read_record(instance.folder)
    if record is None or not record.running:
        failure = instance.failure_file
        reason = failure.read_text() if failure.exists() else _tail(logs / "daemon.log")
        raise ClusterError(f"the daemon of cluster {instance.name} ended: {reason}")
    for name, component in process_manager.noted(instance).items():
        if component["starts"] > _TOO_MANY_STARTS:
            raise ClusterError(
                f"{name} {component['ended']} again and again:\n{_tail(logs / f'{name}.log')}\n"
            )


def unusable_because(instance: Instance) -> str | None:
    """Return what is missing before pods can run, or None if nothing is."""
    if not instance.kubeconfig.exists():
        return "the daemon is still starting"
    names = [node.name for node in nodes.every(instance) if not _lost(node)]
    steps = {
        "/readyz": "the API server does not answer",
        **{f"/api/v1/nodes/{name}": f"node {name} is not there" for name in names},
        "/apis/storage.k8s.io/v1/storageclasses/standard": "there is no StorageClass",
        "/api/v1/namespaces/default/serviceaccounts/default": "there is no service account",
    }
    for path, complaint in steps.items():
        answer = _get(instance, path)
        if answer is None:
            return complaint
        if "/nodes/" in path and not _node_ready(json.loads(answer)):
            return f"node {path.rpartition('/')[2]} is not ready"
    return None if "coredns" in process_manager.noted(instance) else "the DNS server is not there"


def _lost(node: Node) -> bool:
    """Whether somebody keeps it from running, so that nobody waits for it."""
    holding = (node.machine, node.process("kubelet"))
    return any((node.cluster.holds / name).exists() for name in holding)


def _node_ready(node: dict[str, object]) -> bool:
    conditions = node["status"]["conditions"]  # type: ignore[index]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not node["spec"].get("taints")  # type: ignore[attr-defined]


def _get(instance: Instance, path: str) -> str | None:
    argv = [str(binaries.path(binaries.KUBERNETES, "kubectl")), "get", "--raw", path]
    argv += [f"--kubeconfig={instance.kubeconfig}", "--request-timeout=5s"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=_environment())
    return done.stdout if done.returncode == 0 else None


def _tail(log: Path) -> str:
    if not log.exists():
        return "it wrote nothing"
    lines = log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
    return "\n".join(lines) or "it wrote nothing"
