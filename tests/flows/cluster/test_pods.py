"""Real pods: what an operator's workers need of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, ready, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_SERVE = """
import http.server, os, pathlib
mark = pathlib.Path('/data/starts')
mark.write_text(mark.read_text() + 'x' if mark.exists() else 'x')
os.chdir('/data')
print('serving as', os.environ['HOSTNAME'], flush=True)
http.server.ThreadingHTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
_FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
_ASK_API = """
import json, ssl, urllib.request as r
folder = '/var/run/secrets/test/'
context = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt')
url = 'https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews'
body = json.dumps({'apiVersion': 'authentication.k8s.io/v1', 'kind': 'SelfSubjectReview'})
headers = {'Authorization': 'Bearer ' + open(folder + 'token').read(),
           'Content-Type': 'application/json'}
print(r.urlopen(r.Request(url, body.encode(), headers), context=context).read().decode())
"""


def stateful_set(image: str) -> list[Manifest]:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": image,
        "command": ["python3", "-c", _SERVE],
        "env": [{"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"path": "/starts", "port": 8080}, "periodSeconds": 1},
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "token", "mountPath": "/var/run/secrets/test"},
        ],
    }
    token = {"path": "token", "expirationSeconds": 600}
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    service = {"clusterIP": "None", "selector": labels, "publishNotReadyAddresses": True}
    spec = {
        "serviceName": "web",
        "replicas": 2,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": [claim],
    }
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec},
    ]


@pytest.fixture(scope="module")
def web(new_namespace: Callable[[], Kubectl], python_image: str) -> Kubectl:
    """Two pods of a StatefulSet that serve their volumes, in a `restricted` namespace."""
    kubectl = new_namespace()
    kubectl.apply(*stateful_set(python_image))
    for pod in ("web-0", "web-1"):
        kubectl.wait("pod", pod, ready, timeout=180)
    return kubectl


def test_a_privileged_pod_is_refused(namespace: Kubectl, python_image: str) -> None:
    container = {"name": "bad", "image": python_image, "securityContext": {"privileged": True}}
    pod = {"metadata": {"name": "bad"}, "spec": {"containers": [container]}}
    manifest = json.dumps({"apiVersion": "v1", "kind": "Pod"} | pod)
    assert "violates PodSecurity" in namespace("apply", "--filename=-", stdin=manifest, fails=True)


def test_logs(web: Kubectl) -> None:
    assert web("logs", "web-1").startswith("serving as web-1\n")


def test_a_pod_that_is_not_root_owns_its_volume_by_fs_group(web: Kubectl) -> None:
    assert web("exec", "web-0", "--", "stat", "-c", "%g %a", "/data") == "65532 2775\n"


def test_pods_find_each_other_by_name(web: Kubectl) -> None:
    url = f"http://web-0.web.{web.namespace}.svc.cluster.local:8080/starts"

    def fetched() -> str | None:
        try:
            return web("exec", "web-1", "--", "python3", "-c", _FETCH, url).strip()
        except AssertionError:  # the DNS server hears of new pods a moment later
            return None

    assert set(wait_for("an answer by name", fetched, timeout=60)) == {"x"}


def test_a_projected_token_opens_the_api_server(web: Kubectl) -> None:
    review = json.loads(web("exec", "web-0", "--", "python3", "-c", _ASK_API))
    user = review["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{web.namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["web-0"]


def test_a_deleted_pod_comes_back_with_its_volume(web: Kubectl) -> None:
    before = web.get("pod", "web-1")
    assert before
    starts = web("exec", "web-1", "--", "cat", "/data/starts")
    web("delete", "pod", "web-1", "--wait=false")

    def replaced(pod: Manifest) -> bool:
        return pod["metadata"]["uid"] != before["metadata"]["uid"] and ready(pod)

    web.wait("pod", "web-1", replaced, timeout=180)
    assert web("exec", "web-1", "--", "cat", "/data/starts") == starts + "x"


def test_a_claim_grows(web: Kubectl) -> None:
    bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    web("patch", "pvc", "data-web-0", f"--patch={json.dumps(bigger)}")

    def grown(claim: Manifest) -> bool:
        return bool(claim["status"]["capacity"]["storage"] == "2Gi")

    web.wait("pvc", "data-web-0", grown, timeout=180)


def test_a_deleted_claim_takes_its_volume_along(
    new_namespace: Callable[[], Kubectl], python_image: str
) -> None:
    kubectl = new_namespace()
    kubectl.apply(*stateful_set(python_image))
    kubectl.wait("pod", "web-0", ready, timeout=180)
    claim = kubectl.get("pvc", "data-web-0")
    assert claim
    volume = kubectl.get("pv", claim["spec"]["volumeName"])
    assert volume
    kubectl("delete", "statefulset,service,pod,pvc", "--all", "--wait=false")
    wait_for("the volume's end", lambda: not kubectl.get("pv", volume["metadata"]["name"]), 180)
    if folder := volume["spec"].get("local", {}).get("path"):
        assert not Path(folder).exists()


@pytest.mark.local_cluster
def test_the_machine_sees_and_kills_a_pods_processes(cluster: Provider, web: Kubectl) -> None:
    assert isinstance(cluster, LocalProvider)
    pod = web.get("pod", "web-0")
    assert pod
    before = pod["status"]["containerStatuses"][0]["restartCount"]
    (process,) = cluster.pod_processes(pod["metadata"]["uid"])
    process.kill()

    def restarted(pod: Manifest) -> bool:
        return ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] > before

    after = web.wait("pod", "web-0", restarted, timeout=180)
    ended = after["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert ended["exitCode"] == 137
