"""A cluster of two nodes: pods on both, and the loss of one of them as Kubernetes sees it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from urllib.request import ProxyHandler, build_opener

import pytest

from localcluster.base.progress import Progress
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, ready, wait_for, wait_until_gone

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.pods,
    pytest.mark.local_cluster,
    pytest.mark.timeout(600),
]

_LOST_SECONDS = 90
_PORT = 8080
_SERVE = f"""
import os, http.server
class Named(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ['HOSTNAME'].encode())
http.server.ThreadingHTTPServer(('', {_PORT}), Named).serve_forever()
"""
_FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())
except OSError:
    pass
"""
_ASK_API = """
import ssl, urllib.request
context = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt')
url = 'https://kubernetes.default.svc/version'
print(urllib.request.urlopen(url, context=context, timeout=10).read().decode())
"""
_UNREACHABLE = "node.kubernetes.io/unreachable"


@dataclass(frozen=True)
class TwoNodes:
    """A cluster of the module's own, and the image of its pods.

    Parameters
    ----------
    nodes
        The nodes' names, the first one's first.
    """

    provider: LocalProvider
    kubectl: Kubectl
    image: str
    nodes: tuple[str, str]

    def run(self, name: str, node: str) -> Manifest:
        """Run a pod on a node that answers with its name, and return it once it is ready."""
        container = {
            "name": "main",
            "image": self.image,
            "command": ["python3", "-c", _SERVE],
            "readinessProbe": {"httpGet": {"port": _PORT}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}},
        }
        evicted = {"key": _UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}
        spec = {
            "hostname": name,
            "subdomain": "pods",
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "tolerations": [evicted | {"tolerationSeconds": 1}],
            "containers": [container],
        }
        metadata = {"name": name, "labels": {"app": "pods", "name": name}}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        return self.kubectl.wait("pod", name, ready, 120)

    def fetched(self, name: str, host: str) -> str:
        """What a pod gets from a host; nothing where it gets no answer."""
        url = f"http://{host}:{_PORT}/"
        return self.kubectl("exec", name, "--", "python3", "-c", _FETCH, url).strip()


@pytest.fixture(scope="module")
def cluster_of_two(
    cluster: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoNodes]:
    assert isinstance(cluster, LocalProvider)
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nUSER 65532:65532\n")
    provider = LocalProvider(f"test-{secrets.token_hex(3)}", Progress())
    try:
        provider.up(node_count=2)
        image = provider.build_image("test-two-nodes", folder / "Dockerfile", folder, {})
        kubectl = Kubectl(provider.kubectl(), provider.kubeconfig())
        names = (f"dtjob-{provider.name}", f"dtjob-{provider.name}-2")
        found = TwoNodes(provider, kubectl, provider.load_image(image), names)
        headless = {"clusterIP": "None", "selector": {"app": "pods"}}
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pods"}, "spec": headless}
        )
        yield found
    finally:
        provider.down(purge=True)


@pytest.fixture
def pair(cluster_of_two: TwoNodes) -> Iterator[tuple[Manifest, Manifest]]:
    """Pods `near` and `far`, on the first node and on the second."""
    near, far = (
        cluster_of_two.run(*each)
        for each in zip(("near", "far"), cluster_of_two.nodes, strict=True)
    )
    yield near, far
    cluster_of_two.kubectl("delete", "pod", "near", "far", "--ignore-not-found", "--force")


def address(pod: Manifest) -> str:
    found: str = pod["status"]["podIP"]
    return found


def test_pods_of_both_nodes_reach_each_other(
    cluster_of_two: TwoNodes, pair: tuple[Manifest, Manifest]
) -> None:
    near, far = pair
    assert tuple(pod["spec"]["nodeName"] for pod in pair) == cluster_of_two.nodes
    assert cluster_of_two.fetched("near", address(far)) == "far"
    assert cluster_of_two.fetched("far", address(near)) == "near"
    names = {name: f"{name}.pods.default.svc.cluster.local" for name in ("near", "far")}
    for asking, asked in (("near", "far"), ("far", "near")):
        by_name = partial(cluster_of_two.fetched, asking, names[asked])
        wait_for(f"{asked} answers {asking} by its name", by_name, 60)
        assert by_name() == asked
    assert "gitVersion" in cluster_of_two.kubectl("exec", "far", "--", "python3", "-c", _ASK_API)
    assert answered(address(far)) == "far"


def answered(host: str) -> str:
    """What this machine gets from a pod."""
    with build_opener(ProxyHandler({})).open(f"http://{host}:{_PORT}/", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize("closed", ["near", "far"])
def test_a_policy_is_in_force_between_nodes(
    cluster_of_two: TwoNodes, pair: tuple[Manifest, Manifest], closed: str
) -> None:
    """A pod gets in where it is named, wherever it runs; the machine counts as the node."""
    addresses = dict(zip(("near", "far"), map(address, pair), strict=True))
    other = "far" if closed == "near" else "near"
    selector = {"podSelector": {"matchLabels": {"name": closed}}}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": selector | {"policyTypes": ["Ingress"]},
    }
    fetched = cluster_of_two.fetched
    try:
        cluster_of_two.kubectl.apply(policy)
        wait_for("it is closed", lambda: not fetched(other, addresses[closed]), 60)
        assert answered(addresses[closed]) == closed
        assert fetched(closed, addresses[other]) == other
        named = {"from": [{"podSelector": {"matchLabels": {"name": other}}}]}
        policy["spec"]["ingress"] = [named]  # type: ignore[index]
        cluster_of_two.kubectl.apply(policy)
        wait_for("it is open", lambda: fetched(other, addresses[closed]) == closed, 60)
    finally:
        cluster_of_two.kubectl("delete", "networkpolicy", "closed")


def ready_unknown(node: Manifest) -> bool:
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    return bool(conditions["Ready"] == "Unknown")


def terminating(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_a_node_is_lost_with_its_kubelet(
    cluster_of_two: TwoNodes, pair: tuple[Manifest, Manifest]
) -> None:
    provider, kubectl, node = (
        cluster_of_two.provider,
        cluster_of_two.kubectl,
        cluster_of_two.nodes[1],
    )
    uid = pair[1]["metadata"]["uid"]
    provider.kill_node(2)
    try:
        kubectl.wait("node", node, ready_unknown, _LOST_SECONDS)
        evicted = kubectl.wait("pod", "far", terminating, _LOST_SECONDS)
        assert evicted["metadata"]["uid"] == uid
        taints = (kubectl.get("node", node) or {})["spec"]["taints"]
        assert (_UNREACHABLE, "NoExecute") in [(each["key"], each["effect"]) for each in taints]
        assert cluster_of_two.fetched("near", address(pair[1])) == "far", "it goes on"
        kubectl("delete", "pod", "far", "--force", "--grace-period=0")
        wait_until_gone(kubectl, "pod", "far", 10)
        assert cluster_of_two.run("far-again", cluster_of_two.nodes[0])
        assert provider.pod_processes(uid), "Kubernetes has forgotten it, and it still runs"
    finally:
        provider.start_node(2)
    kubectl.wait("node", node, ready, _LOST_SECONDS)
    wait_for("the kubelet ends what is no more", lambda: not provider.pod_processes(uid), 60)
    assert cluster_of_two.run("far", node)["metadata"]["uid"] != uid


def test_a_node_loses_its_power(cluster_of_two: TwoNodes, pair: tuple[Manifest, Manifest]) -> None:
    provider = cluster_of_two.provider
    uid, before = pair[1]["metadata"]["uid"], address(pair[1])
    assert provider.pod_processes(uid)
    provider.kill_node(2, power_off=True)
    try:
        assert not provider.pod_processes(uid)
        assert cluster_of_two.fetched("near", before) == ""
        assert cluster_of_two.fetched("near", address(pair[0])) == "near"
    finally:
        provider.start_node(2)

    def restarted(pod: Manifest) -> bool:
        return ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == 1

    after = cluster_of_two.kubectl.wait("pod", "far", restarted, 120)
    assert after["metadata"]["uid"] == uid
    assert cluster_of_two.fetched("near", address(after)) == "far"
