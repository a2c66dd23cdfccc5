"""One shared cluster for the session, a namespace of its own for each test.

A cluster of that name which already runs (`make cluster-up`) is used and left running; one that
had to be started here is removed at the end. Where tests run at once, each of xdist's workers has a
cluster of its own (`testing.clusters`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.install import binaries
from localcluster.providers import choose
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Capability, Provider
from testing import clusters, rights
from tests.support.clusters import bare_api_server, standstill
from tests.support.clusters.external_metrics import ExternalMetrics
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl
from tests.support.clusters.oracle import Oracle

# The fixtures by which a test asks for dtjob in the cluster, with workers of that image.
TRAINER_IMAGE, STANDIN_IMAGE = "trainer_image", "standin_image"
METRICS = "metrics"
_OPERATORS, _FAULTS = "operators", "faults"
_OPERATOR = Path(__file__).parent / "operator"
_FIRST = (TRAINER_IMAGE, _OPERATORS, _FAULTS)
"""With the first two the two workers begin; what comes after them is for who is done first."""


class _Shared:
    """The session's cluster, started before the first test that needs it, and dtjob in it.

    Not in a fixture: a first start may build Kubernetes, or images, which no test's timeout allows
    for.
    """

    def __init__(self) -> None:
        self._provider: Provider | None = None
        self._installed: dict[str, Installed] = {}
        self._failure: Exception | None = None
        self._install_failures: dict[str, Exception] = {}
        self._started_here = False
        self.oracle: Oracle | None = None

    def start(self, config: pytest.Config) -> None:
        if self._provider or self._failure:
            return
        try:
            provider: Provider
            if own := clusters.of_worker(config):
                own.down()  # what a session left that was killed
                provider = own
            else:
                provider = choose.provider(DEFAULT_NAME, choose.Choice.AUTO, Progress())
                self._started_here = not provider.status().running
            provider.up()
            os.sync()  # or what was unpacked is written while the first tests measure times
            standstill.begin()
            self._provider = provider
            self.oracle = Oracle(provider.kubeconfig())
        except Exception as error:  # every test that needs the cluster reports it
            self._failure = error

    def get(self) -> Provider:
        if self._failure:
            raise self._failure
        assert self._provider
        return self._provider

    def install(self, image: str) -> None:
        if image in self._installed or image in self._install_failures:
            return
        for last in (False, True):  # a package registry that a build asks may have a bad moment
            try:
                standins = image == STANDIN_IMAGE
                self._installed[image] = Installed.into(self.get(), standins=standins)
                break
            except Exception as error:
                if last:
                    self._install_failures[image] = error
        os.sync()  # gigabytes were built, pushed and unpacked; the next tests measure times

    def get_installed(self, image: str) -> Installed:
        if failure := self._install_failures.get(image):
            raise failure
        return self._installed[image]

    def stop(self) -> None:
        if isinstance(self._provider, LocalProvider):
            rights.keep(self._provider.audit_log())
        if self._provider and self._started_here:
            self._provider.down()


_shared = _Shared()


def pytest_configure(config: pytest.Config) -> None:
    meaning = "local_cluster: needs the cluster that tools/localcluster makes itself (root, Go)"
    config.addinivalue_line("markers", meaning)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What stops the API server or the operator comes last of all that the cluster runs.

    What shares something in a cluster is for one worker, so that each installs it once, and no two
    gangs train at once.
    """
    items.sort(key=lambda item: item.get_closest_marker("faults") is not None)
    group = {item: _group(item) for item in items if item.get_closest_marker("cluster")}
    for item, name in group.items():
        item.add_marker(pytest.mark.xdist_group(name))
    if hasattr(config, "workerinput"):
        order = {name: place for place, name in enumerate(_FIRST)}
        items.sort(key=lambda item: order.get(group.get(item, ""), len(_FIRST)))


def _group(item: pytest.Item) -> str:
    """By what it shares with others in a cluster: an image of workers, or the operator.

    Operators that are processes run before the one in a pod, whose jobs they would look after too,
    so they and the stand-ins are one group, but for the faults around them, which take minutes and
    install dtjob once more where need be. What needs no dtjob shares the cluster alone.
    """
    fixtures = getattr(item, "fixturenames", ())
    if TRAINER_IMAGE in fixtures:
        return TRAINER_IMAGE
    if STANDIN_IMAGE in fixtures and item.get_closest_marker("faults"):
        return _FAULTS
    if STANDIN_IMAGE in fixtures or _OPERATOR in item.path.parents:
        return _OPERATORS
    return item.path.stem


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("cluster"):
        _shared.start(item.config)
    if item.get_closest_marker("oldest_kubernetes"):
        with suppress(ClusterError):  # what asks for it then says so
            bare_api_server.build()
    if METRICS in getattr(item, "fixturenames", ()):
        with suppress(ClusterError):
            binaries.ensure(Progress(), (binaries.METRICS_SERVER,))
    for image in (TRAINER_IMAGE, STANDIN_IMAGE):
        if image in getattr(item, "fixturenames", ()):
            _shared.install(image)
    return (yield)


@pytest.fixture
def oracle(cluster: Provider) -> Oracle:
    """What looks at every version of the cluster's jobs, ledgers and StatefulSets."""
    assert _shared.oracle is not None
    return _shared.oracle


@pytest.fixture(autouse=True)
def unbroken(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, the invariants of jobs, ledgers and StatefulSets hold."""
    yield
    if _shared.oracle is not None and request.node.get_closest_marker("cluster"):
        broken = _shared.oracle.take()
        assert not broken, "\n".join(broken)


def pytest_sessionfinish() -> None:
    _shared.stop()


@pytest.fixture(scope="session")
def cluster() -> Provider:
    """The shared cluster, running."""
    return _shared.get()


@pytest.fixture(scope="session")
def metrics(cluster: Provider) -> LocalProvider:
    """The shared cluster, which measures what pods use from here on."""
    assert isinstance(cluster, LocalProvider)
    cluster.enable_metrics()
    return cluster


@pytest.fixture
def external_metrics(cluster: Provider) -> Iterator[ExternalMetrics]:
    """Metrics of no object, whose values the test sets."""
    assert isinstance(cluster, LocalProvider)
    with ExternalMetrics.of(cluster) as served:
        yield served


@pytest.fixture(scope="session")
def python_image(cluster: Provider, tmp_path_factory: pytest.TempPathFactory) -> str:
    """How pods name an image with nothing but Python, which any pod starts from in a second."""
    assert Capability.IMAGES in cluster.capabilities
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(
        "ARG BASE_IMAGE=python:3.11-slim\nFROM ${BASE_IMAGE}\nUSER 65532:65532\n"
    )
    built = cluster.build_image("python", folder / "Dockerfile", folder, {})
    return cluster.load_image(built)


@pytest.fixture(scope="session")
def trainer_image(cluster: Provider) -> str:
    """How pods name the trainer's image, built from this checkout."""
    return _shared.get_installed(TRAINER_IMAGE).worker_image


@pytest.fixture(scope="session")
def standin_image(cluster: Provider) -> str:
    """How pods name the stand-in's image, built from this checkout."""
    return _shared.get_installed(STANDIN_IMAGE).worker_image


@pytest.fixture(scope="session")
def installed(trainer_image: str) -> Installed:
    """dtjob in the shared cluster, its operator in a pod, for jobs that train."""
    return _shared.get_installed(TRAINER_IMAGE)


@pytest.fixture(scope="session")
def standins(standin_image: str) -> Installed:
    """dtjob in the shared cluster, its operator in a pod, for jobs of stand-ins."""
    return _shared.get_installed(STANDIN_IMAGE)


@pytest.fixture(scope="module")
def new_namespace(cluster: Provider) -> Iterator[Callable[[], Kubectl]]:
    """Make namespaces that enforce Pod Security `restricted`.

    They go with the module: the jobs in them would cost the operator of the next one its time.
    """
    program, kubeconfig = cluster.kubectl(), cluster.kubeconfig()
    made: list[str] = []

    def make() -> Kubectl:
        name = f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl = Kubectl(program, kubeconfig, name)
        metadata = {"name": name, "labels": labels}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        made.append(name)
        return kubectl

    yield make
    if made:
        Kubectl(program, kubeconfig)("delete", "namespace", "--wait=false", *made)


@pytest.fixture
def namespace(new_namespace: Callable[[], Kubectl]) -> Kubectl:
    """kubectl in a new namespace that enforces Pod Security `restricted`."""
    return new_namespace()
