"""A control plane with KWOK nodes, in network and PID namespaces that hold nothing else.

Every address that it uses leads to the loopback device of that network namespace, pods' addresses
among them, so that nothing leaves the machine and nothing of it collides with anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from ruamel.yaml import YAML

from localcluster.base import project
from localcluster.base.paths import tools_cache
from localcluster.base.progress import Progress
from localcluster.cluster.component import Component, answers
from localcluster.cluster.instance import Instance
from localcluster.control import certificates, controlplane
from localcluster.control.volumes import STORAGE_CLASS
from localcluster.install import binaries

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "dtjob-system"
GPUS_PER_NODE = 8
_STAGES = Path(__file__).with_name("stages.yaml")
_ALL_ADDRESSES = "10.224.0.0/11"
_POD_BLOCKS = IPv4Network("10.232.0.0/14")
_READY_SECONDS = 120.0
_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
_RAISED = ["--kube-api-qps=500", "--kube-api-burst=1000"]
# One file for the whole run, 300 jobs make more than the default of 100.
_AUDIT_LOG_MIB = 10_000
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "namespaces": ["kube-node-lease"]},  # the nodes' own signs of life
        {"level": "Metadata"},
    ],
}


def in_own_namespaces(argv: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Build what is missing, then run this Python with `argv` there; the exit code.

    All that it starts ends with it. `folder` has the state of the control plane.
    """
    kubernetes = (binaries.only(binaries.KUBERNETES, name) for name in _COMMANDS)
    binaries.ensure(Progress(), (binaries.ETCD, *kubernetes, binaries.KWOK))
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    places = {
        project.TOOLS_CACHE_VARIABLE: str(tools_cache()),
        project.CACHE_VARIABLE: str(folder),
    }
    apart = ["unshare", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    done = subprocess.run(
        [*apart, sys.executable, *argv], env=kept | places | environment, check=False
    )
    return done.returncode


class ControlPlane:
    """etcd, API server, controller manager, scheduler and KWOK, with dtjob's definitions and roles.

    Attributes
    ----------
    server
        URL of the API server.
    authority
        PEM file of the authority of its certificate.
    kubeconfig
        The administrator's.
    audit_log
        One line for each request but reads and the nodes' Leases.
    """

    def __init__(self, nodes: int) -> None:
        self._instance = Instance("operator-scale", 0)
        self._folder = self._instance.folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.server = self._instance.server
        self.authority = self._folder / "pki" / "ca.crt"
        self.kubeconfig = self._instance.kubeconfig
        self.audit_log = self._folder / "audit.log"
        self._start()
        self._install(nodes)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; its standard output."""
        program = binaries.path(binaries.KUBERNETES, "kubectl")
        argv = [str(program), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(argv, check=False, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """A kubeconfig with the rights of a service account."""
        of_account = f"--namespace={namespace}", account, "--duration=24h"
        token = self.kubectl("create", "token", *of_account).strip()
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        file = self._folder / f"{namespace}.{account}.kubeconfig"
        file.write_text(json.dumps(config))
        return file

    def check(self) -> None:
        """Raise if a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self._instance.logs / f"{name}.log"
                raise SystemExit(f"{name} has ended: {log.read_text()[-2000:]}")

    def _start(self) -> None:
        instance = self._instance
        for argv in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "route", "add", "local", _ALL_ADDRESSES, "dev", "lo"],
        ):
            subprocess.run(argv, check=True)
        instance.logs.mkdir(parents=True)
        certificates.write_all(instance)
        policy = self._folder / "audit.yaml"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        audit = [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            f"--audit-log-maxsize={_AUDIT_LOG_MIB}",
        ]
        self._run(controlplane.etcd(instance))
        self._run(_with(controlplane.api_server(instance), *audit))
        self._await(answers(f"{self.server}/readyz", self.authority), "the API server")
        syncs = "--concurrent-statefulset-syncs=50"
        self._run(_with(controlplane.controller_manager(instance), *_RAISED, syncs))
        self._run(_with(controlplane.scheduler(instance), *_RAISED))
        kwok = [str(binaries.path(binaries.KWOK, "kwok")), f"--kubeconfig={self.kubeconfig}"]
        kwok += ["--manage-all-nodes", f"--config={_STAGES}", "--node-lease-duration-seconds=40"]
        self._run(Component("kwok", kwok))

    def _run(self, component: Component) -> None:
        with (self._instance.logs / f"{component.name}.log").open("wb") as log:
            self._processes[component.name] = subprocess.Popen(
                component.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await(component.ready, component.name)

    def _await(self, ready: object, what: str) -> None:
        assert callable(ready)
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} is not ready after {_READY_SECONDS:.0f} s")
            time.sleep(0.1)

    def _install(self, nodes: int) -> None:
        base = self.kubectl("kustomize", str(ROOT / "deploy" / "kustomize" / "base"))
        objects = [each for each in YAML(typ="safe").load_all(base) if each["kind"] != "Deployment"]
        blocks = _POD_BLOCKS.subnets(new_prefix=24)
        objects += [STORAGE_CLASS, *(_node(n, next(blocks)) for n in range(nodes))]
        everything = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(everything))
        names = ("distributedtrainingjobs.dtjob.dev", "privacyledgers.dtjob.dev")
        self.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in names))
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")


def _with(component: Component, *flags: str) -> Component:
    return replace(component, argv=[*component.argv, *flags])


def _node(number: int, block: IPv4Network) -> dict[str, object]:
    """A machine with eight GPUs, and room for what else a worker asks for."""
    name = f"node-{number:04}"
    resources = {
        "cpu": "64",
        "memory": "512Gi",
        "pods": "110",
        "nvidia.com/gpu": str(GPUS_PER_NODE),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": str(block), "podCIDRs": [str(block)]},
        "status": {"capacity": resources, "allocatable": resources},
    }
