"""The enforcer of NetworkPolicies, which the bridge that pods hang on does not know.

Run on each node, in its network namespace, as `python -m localcluster.networking.enforcer
--kubeconfig FILE --node NAME --node NAME`, with the names of all nodes. What pods send one another
over the bridge goes through iptables, as the kernel has it by default. When it ends, the rules stay
until the namespace goes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from localcluster.base.errors import ClusterError
from localcluster.cluster import nodes
from localcluster.cluster.component import Component
from localcluster.cluster.nodes import Node
from localcluster.networking import policies

# The client's helpers have no types; what comes out of them is plain JSON.
_Watch: Any = watch.Watch
_connect: Any = config.new_client_from_config
_WATCH_SECONDS = 60  # a watch ends after this, so everything is listed anew this often
_RETRY_SECONDS = 1.0
_TOGETHER_SECONDS = 0.05  # what comes within this is put into force at once

Key = tuple[str, str]
Listed = dict[Key, dict[str, Any]]


def component(node: Node) -> Component:
    """Return the enforcer of what a node's pods send and get, as a process of the node."""
    argv = [sys.executable, "-m", "localcluster.networking.enforcer"]
    argv += ["--kubeconfig", str(node.cluster.folder / "admin-inside.kubeconfig")]
    for each in nodes.every(node.cluster):  # what a policy names may be anywhere
        argv += ["--node", each.name]
    return Component(node.process("network-policies"), argv)


class Enforcer:
    """Follows policies, pods and namespaces, and puts into force what they come to."""

    def __init__(self, connection: Any, node_names: list[str]) -> None:
        core: Any = client.CoreV1Api(connection)
        networking: Any = client.NetworkingV1Api(connection)
        self._sources: dict[str, tuple[Any, dict[str, str]]] = {
            "policies": (networking.list_network_policy_for_all_namespaces, {}),
            "namespaces": (core.list_namespace, {}),
        }
        # Fake nodes' pods send nothing, and there may be thousands of them.
        self._pods = {f"pods of {name}": f"spec.nodeName={name}" for name in node_names}
        for source, selector in self._pods.items():
            options = {"field_selector": selector}
            self._sources[source] = (core.list_pod_for_all_namespaces, options)
        self._known: dict[str, Listed] = {}
        self._changed = threading.Event()

    def run(self) -> None:
        """Enforce for ever."""
        restore("ip6tables-restore", policies.IPV6)
        for name in self._sources:
            threading.Thread(target=self._follow, args=(name,), daemon=True).start()
        in_force = ""
        while True:
            self._changed.wait()
            time.sleep(_TOGETHER_SECONDS)
            self._changed.clear()
            if len(self._known) < len(self._sources):
                continue
            table = self._table()
            if table != in_force:
                restore("iptables-restore", table)
                in_force = table

    def _table(self) -> str:
        namespaces = {
            name: each["metadata"].get("labels") or {}
            for (_, name), each in self._known["namespaces"].items()
        }
        pods = [pod for source in self._pods for pod in self._known[source].values()]
        return policies.table(self._known["policies"].values(), pods, namespaces)

    def _follow(self, name: str) -> None:
        lister, options = self._sources[name]
        while True:
            try:
                listed = json.loads(lister(**options, _preload_content=False).data)
                self._put(name, {_key(each): each for each in listed["items"]})
                self._watch(name, listed["metadata"]["resourceVersion"])
            except (client.ApiException, HTTPError):  # it is away, or has forgotten the version
                time.sleep(_RETRY_SECONDS)

    def _watch(self, name: str, version: str) -> None:
        lister, options = self._sources[name]
        for event in _Watch().stream(
            lister, **options, resource_version=version, timeout_seconds=_WATCH_SECONDS
        ):
            obj = event["raw_object"]
            others = {key: each for key, each in self._known[name].items() if key != _key(obj)}
            self._put(name, others if event["type"] == "DELETED" else others | {_key(obj): obj})

    def _put(self, name: str, objects: Listed) -> None:
        self._known[name] = objects  # as a whole, since another thread reads it
        self._changed.set()


def _key(obj: dict[str, Any]) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def restore(program: str, table: str) -> None:
    """Exchange a table for another one in one step.

    Raises
    ------
    ClusterError
        If the kernel does not take it.
    """
    done = subprocess.run([program], input=table, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"`{program}` failed: {done.stderr.strip()}\n{table}")


def main() -> None:
    """Enforce until killed."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.networking.enforcer")
    parser.add_argument("--kubeconfig", required=True, type=Path)
    parser.add_argument("--node", required=True, action="append")
    arguments = parser.parse_args()
    Enforcer(_connect(str(arguments.kubeconfig)), arguments.node).run()


if __name__ == "__main__":
    main()
