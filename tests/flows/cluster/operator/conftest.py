"""dtjob installed in the shared cluster, its operator run as a process of the test."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OPERATOR_NAMESPACE, OperatorProcess, install
from tests.support.jobs.played_jobs import Player

_DEPLOYMENT = "deployment/dtjob-operator"


@pytest.fixture(scope="session")
def admin(cluster: Provider) -> Kubectl:
    """The cluster's administrator, in the operator's namespace."""
    return Kubectl(cluster.kubectl(), cluster.kubeconfig(), OPERATOR_NAMESPACE)


@pytest.fixture(scope="session")
def installed(admin: Kubectl) -> Iterator[Kubectl]:
    """dtjob installed; an operator that runs here as a pod rests meanwhile."""
    install(admin)
    replicas = admin("get", _DEPLOYMENT, "--ignore-not-found", "--output=jsonpath={.spec.replicas}")
    if replicas and replicas != "0":
        admin("scale", _DEPLOYMENT, "--replicas=0")
        selector = "--selector=app.kubernetes.io/component=operator"
        admin("wait", "--for=delete", "pods", selector, "--timeout=180s")
    yield admin
    if replicas and replicas != "0":
        admin("scale", _DEPLOYMENT, f"--replicas={replicas}")


@pytest.fixture
def no_scheduler(cluster: Provider) -> Iterator[None]:
    """Pods stay as they are made, so that what is compared can't change by their course."""
    assert isinstance(cluster, LocalProvider)
    cluster.stop_component("kube-scheduler")
    yield
    cluster.start_component("kube-scheduler")


@pytest.fixture(scope="session")
def operator_token(installed: Kubectl) -> str:
    """A token of the operator's own account."""
    return installed("create", "token", "dtjob-operator", "--duration=4h").strip()


@pytest.fixture(scope="module")
def proxy(installed: Kubectl) -> Iterator[ApiProxy]:
    """What the operator believes to be the API server."""
    proxy = ApiProxy(installed.kubeconfig)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def start_operator(
    installed: Kubectl,
    proxy: ApiProxy,
    operator_token: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], OperatorProcess]]:
    """Start operators; those that still run are killed at the end.

    What a killed one held is free at once for the next, but for those that ran beside it.
    None may have logged an error or a traceback: whatever a test does to it, the input is valid.
    """
    started: list[OperatorProcess] = []
    folder = tmp_path_factory.mktemp("operator")

    def start() -> OperatorProcess:
        if not any(process.alive for process in started):
            installed("delete", "lease", "dtjob-operator", "--ignore-not-found")
        kubeconfig = proxy.kubeconfig(operator_token)
        started.append(OperatorProcess(kubeconfig, folder / f"{len(started)}.log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
    for process in started:
        bad = [line for line in process.logs() if line["level"] in ("error", "critical")]
        assert not bad


@pytest.fixture(scope="module")
def operator(start_operator: Callable[[], OperatorProcess]) -> OperatorProcess:
    """A running operator."""
    process = start_operator()
    process.wait_until_ready()
    return process


@pytest.fixture(scope="session")
def with_token(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kubectl, str], Kubectl]:
    """kubectl with a token's rights instead of the administrator's."""
    folder = tmp_path_factory.mktemp("tokens")

    def make(kubectl: Kubectl, token: str) -> Kubectl:
        content: Manifest = json.loads(kubectl.kubeconfig.read_text())
        content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
        file: Path = folder / f"{abs(hash(token))}.kubeconfig"
        file.write_text(json.dumps(content))
        return Kubectl(kubectl.program, file, kubectl.namespace)

    return make


@pytest.fixture
def stored_job(namespace: Kubectl) -> Callable[[Manifest], Manifest]:
    """Apply a job and return it as it is stored."""

    def make(manifest: Manifest) -> Manifest:
        namespace.apply(manifest)
        name = manifest["metadata"]["name"]
        return wait_for("the job is stored", lambda: namespace.get("dtjob", name), 60)

    return make


@pytest.fixture(scope="module")
def player(installed: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    """Plays the pods of jobs made by `played_job`, and takes its Node along in the end."""
    label = f"test-{secrets.token_hex(3)}"
    player = Player(label, tmp_path_factory.mktemp("player"), installed.kubeconfig)
    yield player
    player.stop()
