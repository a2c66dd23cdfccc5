"""A job's NetworkPolicy, proved with packets on a cluster whose network enforces it.

The policy is the operator's own, for pods that only listen and connect: no job runs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.well_known import HELLO_PORT, HTTP_PORT, STORE_PORT
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.kube.api_server_address import endpoints
from dtjob_operator.terms.settings import Settings
from localcluster.cluster.instance import state_folder
from localcluster.cluster.state import read_record
from localcluster.networking.interfaces import BRIDGE
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, ready, wait_for
from tests.support.clusters.operator_process import unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster, pytest.mark.timeout(600)]

UID = "0a1b2c3d-0000-4000-8000-000000000001"
METADATA = "169.254.169.254"
GLOO = 43210
"""Of those that nobody fixes."""
PORTS = (HTTP_PORT, HELLO_PORT, STORE_PORT, GLOO)
DNS = (53, 5353)
IN_FORCE_SECONDS = 60

_LISTEN = f"""
import socket, threading
def serve(port):
    listener = socket.create_server(('', port))
    while True:
        listener.accept()[0].close()
def answer(port):
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(('', port))
    while True:
        data, asker = listener.recvfrom(64)
        listener.sendto(data, asker)
dns = (53, 5353)
fixed = ({HTTP_PORT}, {HELLO_PORT}, {STORE_PORT})
threads = [threading.Thread(target=answer, args=(port,)) for port in (*dns, {GLOO})]
threads += [threading.Thread(target=serve, args=(port,)) for port in (*dns, *fixed)]
threads += [threading.Thread(target=serve, args=({GLOO},))]  # the last one: it is probed
for thread in threads:
    thread.start()
"""
_AT_ONCE = """
import json, socket, sys, threading
reached = []
{attempt}
threads = [threading.Thread(target=attempt, args=tuple(each)) for each in json.loads(sys.argv[1])]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(reached))
"""
_CONNECT = """
def attempt(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        reached.append([host, port])
    except OSError:
        pass
"""
_ASK = """
def attempt(host, port):
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(0.5)
    for _ in range(4):  # a packet may be lost
        try:
            asking.sendto(b'?', (host, port))
            asking.recv(64)
            reached.append([host, port])
            return
        except OSError:
            pass
"""
_RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
_ASK_API = """
import ssl, urllib.request
context = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt')
url = 'https://kubernetes.default.svc/version'
print(urllib.request.urlopen(url, context=context, timeout=10).read().decode())
"""
Targets = set[tuple[str, int]]


@dataclass(frozen=True)
class Listener:
    """A pod that listens on every port of a worker."""

    kubectl: Kubectl
    name: str
    address: str

    def run(self, program: str, *arguments: str) -> str:
        """What a Python program prints in the pod."""
        return self.kubectl("exec", self.name, "--", "python3", "-c", program, *arguments)

    def reaches(self, targets: Targets) -> Targets:
        """Those of the targets that a TCP connection comes about with."""
        return self._tried(_CONNECT, targets)

    def hears_from(self, targets: Targets) -> Targets:
        """Those of the targets that answer a UDP packet."""
        return self._tried(_ASK, targets)

    def _tried(self, attempt: str, targets: Targets) -> Targets:
        program = _AT_ONCE.format(attempt=attempt)
        reached = json.loads(self.run(program, json.dumps(sorted(targets))))
        return {(host, port) for host, port in reached}

    def all_ports(self) -> Targets:
        return {(self.address, port) for port in PORTS}


def listener(image: str, labels: dict[str, str]) -> Manifest:
    container = {
        "name": "listener",
        "image": image,
        "command": ["python3", "-c", _LISTEN],
        "readinessProbe": {"tcpSocket": {"port": GLOO}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
                # So that DNS's port is anybody's.
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [container],
        },
    }


@dataclass(frozen=True)
class Gang:
    """Two workers of a job, and who else is there."""

    workers: tuple[Listener, Listener]
    neighbour: Listener
    stranger: Listener
    operator: Listener
    monitoring: Listener

    @property
    def kubectl(self) -> Kubectl:
        """kubectl in the job's namespace."""
        return self.neighbour.kubectl

    def restrict(self, **network: Any) -> None:
        """Apply what the operator would, with the API server where it says that it is."""
        manifest = unplaced_job("digits", network=network)
        manifest["metadata"] |= {"namespace": self.kubectl.namespace, "uid": UID}
        default = Kubectl(self.kubectl.program, self.kubectl.kubeconfig, "default")
        told = (default.get(kind, "kubernetes") for kind in ("endpointslice", "service"))
        settings = Settings(
            operator_namespace=self.operator.kubectl.namespace,
            monitoring_namespaces=(self.monitoring.kubectl.namespace,),
        )
        policy = network_policy(
            DistributedTrainingJob.from_dict(manifest), endpoints(*told), settings
        )
        del policy["metadata"]["ownerReferences"]  # there is no job, and what it owns would go
        self.kubectl.apply(policy)


@pytest.fixture(scope="module")
def gang(cluster: Provider, new_namespace: Callable[[], Kubectl], python_image: str) -> Gang:
    home, far, system, monitoring = (new_namespace() for _ in range(4))
    mine = {"dtjob.dev/job": "digits", "dtjob.dev/job-uid": UID}
    where = {
        "worker-0": (home, mine),
        "worker-1": (home, mine),
        "neighbour": (home, {"dtjob.dev/job": "digits", "dtjob.dev/job-uid": "another"}),
        # Labels alone open nothing in another namespace.
        "stranger": (far, mine),
        "operator": (system, {"app": "operator"}),
        "monitoring": (monitoring, {"app": "prometheus"}),
    }
    for name, (kubectl, labels) in where.items():
        manifest = listener(python_image, labels)
        manifest["metadata"]["name"] = name
        kubectl.apply(manifest)
    found = {}
    for name, (kubectl, _) in where.items():
        pod = kubectl.wait("pod", name, ready, timeout=180)
        found[name] = Listener(kubectl, name, pod["status"]["podIP"])
    workers = found.pop("worker-0"), found.pop("worker-1")
    return Gang(workers, **found)


@pytest.fixture(scope="module")
def metadata_service(cluster: Provider) -> Iterator[None]:
    """The metadata address on the cluster's bridge, where the API server answers on every one."""
    assert isinstance(cluster, LocalProvider)
    record = read_record(state_folder(cluster.name))
    assert record is not None
    assert record.holder is not None
    enter = ["nsenter", f"--net=/proc/{record.holder.pid}/ns/net", "ip", "address"]
    subprocess.run([*enter, "add", f"{METADATA}/32", "dev", BRIDGE], check=True)
    yield
    subprocess.run([*enter, "delete", f"{METADATA}/32", "dev", BRIDGE], check=True)


@pytest.fixture(scope="module")
def restricted(gang: Gang) -> Gang:
    """The gang with its policy, in force."""
    first = gang.workers[0]
    assert gang.stranger.reaches(first.all_ports()) == first.all_ports(), "open without a policy"
    gang.restrict()
    in_force(gang)
    return gang


def in_force(gang: Gang) -> None:
    """Wait until a policy is seen to work, both ways."""
    ports, out = gang.workers[0].all_ports(), {(gang.stranger.address, GLOO)}

    def closed() -> bool:
        return not gang.stranger.reaches(ports) and not gang.workers[0].reaches(out)

    wait_for("the policy is in force", closed, IN_FORCE_SECONDS)


def test_who_reaches_the_workers(restricted: Gang) -> None:
    first, second = restricted.workers
    every = first.all_ports() | second.all_ports()
    reports = {(worker.address, HTTP_PORT) for worker in restricted.workers}
    assert restricted.stranger.reaches(every) == set()
    assert restricted.neighbour.reaches(every) == set()
    assert restricted.operator.reaches(every) == reports
    assert restricted.monitoring.reaches(every) == reports
    assert second.reaches(first.all_ports()) == first.all_ports()
    assert first.reaches(second.all_ports()) == second.all_ports()


def test_what_the_workers_reach(restricted: Gang, metadata_service: None) -> None:
    worker = restricted.workers[0]
    service = worker.run(_RESOLVE, "kubernetes.default.svc.cluster.local").strip()
    assert ip_address(service).version == 4, "DNS"
    assert "gitVersion" in worker.run(_ASK_API)
    others = (restricted.neighbour, restricted.stranger, restricted.operator, restricted.monitoring)
    closed = {target for other in others for target in other.all_ports()} | {(METADATA, 443)}
    assert restricted.stranger.reaches(closed) >= {(METADATA, 443)}, "it would answer"
    assert worker.reaches(closed) == set()


def test_names_are_asked_for_at_any_address(restricted: Gang) -> None:
    """By both protocols and at both ports: clusters differ in where DNS is served."""
    worker, stranger = restricted.workers[0], restricted.stranger
    dns = {(stranger.address, port) for port in DNS}
    other = {(stranger.address, GLOO)}
    assert restricted.neighbour.hears_from(dns | other) == dns | other, "open without a policy"
    assert worker.hears_from(dns | other) == dns
    assert worker.reaches(dns | other) == dns
    mine = {(worker.address, port) for port in DNS}
    assert stranger.hears_from(mine) == stranger.reaches(mine) == set()


def test_probes_need_no_rule(restricted: Gang) -> None:
    """The kubelet's: a worker that is not ready would be left out of everything."""
    for worker in restricted.workers:
        restricted.kubectl.wait("pod", worker.name, ready, timeout=5)


def test_what_the_job_names_is_open_and_metadata_only_by_name(
    restricted: Gang, metadata_service: None
) -> None:
    worker, stranger = restricted.workers[0], restricted.stranger
    tried = stranger.all_ports() | {(METADATA, 443)}

    def opens(expected: Targets, *egress: Manifest) -> None:
        restricted.restrict(egress=list(egress))
        what = f"{egress} opens {expected}"
        wait_for(what, lambda: worker.reaches(tried) == expected, IN_FORCE_SECONDS)

    everywhere = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}
    opens(stranger.all_ports(), everywhere)
    in_namespace = {"matchLabels": {"kubernetes.io/metadata.name": stranger.kubectl.namespace}}
    opens(
        {(stranger.address, HELLO_PORT)},
        {"to": [{"namespaceSelector": in_namespace}], "ports": [{"port": HELLO_PORT}]},
    )
    by_name = {"to": [{"ipBlock": {"cidr": f"{METADATA}/32"}}], "ports": [{"port": 443}]}
    opens({(METADATA, 443)}, by_name)
    opens(set())


def test_a_pod_that_lost_its_label_is_outside(restricted: Gang) -> None:
    """Why the operator warns of it: everybody reaches it, and its own gang does not."""
    first, second = restricted.workers
    restricted.kubectl("label", "pod", second.name, "dtjob.dev/job-uid-")
    try:
        wait_for(
            "it is open",
            lambda: restricted.stranger.reaches(second.all_ports()) == second.all_ports(),
            IN_FORCE_SECONDS,
        )
        assert second.reaches(first.all_ports()) == set()
        assert first.reaches(second.all_ports()) == set()
    finally:
        restricted.kubectl("label", "pod", second.name, f"dtjob.dev/job-uid={UID}")
        in_force(restricted)
