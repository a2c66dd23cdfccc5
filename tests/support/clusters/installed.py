"""dtjob as a user has it: the operator in its pod, worker pods from an image."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from demo import install
from localcluster.base.progress import Progress
from localcluster.images.built import BuiltImage
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for

_DEPLOYMENT = "deployment/dtjob-operator"
_SELECTOR = "app.kubernetes.io/component=operator"
_START_SECONDS = 300


@dataclass(frozen=True)
class Installed:
    """A cluster with dtjob in it.

    Parameters
    ----------
    cluster
        The cluster.
    worker_image
        How pods name the image of workers: the trainer's, or the stand-in's.
    """

    cluster: install.Cluster
    worker_image: str

    @classmethod
    def into(cls, provider: Provider, *, standins: bool) -> Installed:
        """Build the images from this checkout and install dtjob, which replaces an older one."""
        worker = _build_standin(provider) if standins else install.build(provider, "trainer")
        images = {"operator": install.build(provider, "operator"), "trainer": worker}
        cluster = install.Cluster.of(provider)
        return cls(cluster, install.install(cluster, images, Progress()))

    @property
    def system(self) -> Kubectl:
        """kubectl in the operator's namespace."""
        return Kubectl(self.cluster.program, self.cluster.kubeconfig, install.OPERATOR_NAMESPACE)

    def operator_pods(self) -> list[Manifest]:
        """The operator's pods, those on their way out among them."""
        return self.system.list("pods", selector=_SELECTOR)

    def stop_operator(self) -> None:
        """Scale the operator to no pods."""
        self.system("scale", _DEPLOYMENT, "--replicas=0")
        wait_for("the end of the operator", lambda: not self.operator_pods(), 180)

    def start_operator(self) -> None:
        """Scale the operator to one pod and wait until it is ready."""
        self.system("scale", _DEPLOYMENT, "--replicas=1")
        self.wait_for_operator()

    def wait_for_operator(self) -> None:
        """Wait until the operator is ready."""
        self.system("rollout", "status", _DEPLOYMENT, f"--timeout={_START_SECONDS}s")

    def kill_operator(self, provider: LocalProvider) -> None:
        """SIGKILL of all: nothing is tidied up. The pods go too, so that new ones come at once.

        Their Lease goes as well, which new ones would wait out.
        """
        for pod in self.operator_pods():
            for process in provider.pod_processes(pod["metadata"]["uid"]):
                with suppress(ProcessLookupError):
                    process.kill()
            name = pod["metadata"]["name"]
            self.system("delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found")
        self.system("delete", "lease", "dtjob-operator", "--ignore-not-found")

    @contextmanager
    def without_operator(self) -> Iterator[None]:
        """No operator for a while."""
        self.stop_operator()
        try:
            yield
        finally:
            self.start_operator()

    def read_volume(self, kubectl: Kubectl, claim: str, path: str) -> str:
        """A file of a claim's volume, read by a pod that mounts it."""
        name = f"reader-{secrets.token_hex(3)}"
        container = {
            "name": "reader",
            "image": self.worker_image,
            "command": ["cat", f"/volume/{path}"],
            "volumeMounts": [{"name": "volume", "mountPath": "/volume", "readOnly": True}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        }
        kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

        def ended(pod: Manifest) -> bool:
            return pod["status"].get("phase") in ("Succeeded", "Failed")

        try:
            # After an outage of the API server, watches are begun again only within a minute.
            pod = kubectl.wait("pod", name, ended, 300)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{kubectl('describe', 'pod', name)}") from None
        text = kubectl("logs", name)
        kubectl("delete", "pod", name, "--wait=false")
        assert pod["status"]["phase"] == "Succeeded", text
        return text


def _build_standin(provider: Provider) -> BuiltImage:
    dockerfile = install.ROOT / "tools" / "standin" / "Dockerfile"
    return provider.build_image("standin", dockerfile, install.ROOT, {})
