"""Builds dtjob's two images from a checkout and installs the operator into a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.images.built import BuiltImage
from localcluster.install import kubectl
from localcluster.providers.protocol import Provider

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "dtjob-system"
_DEPLOYMENT = "deployment/dtjob-operator"
_OPERATOR_IMAGE = "ghcr.io/dtjob/operator"
_ROLLOUT_SECONDS = 400
_LOG_LINES = 12


@dataclass(frozen=True)
class Cluster:
    """A cluster, and kubectl with its administrator's rights."""

    provider: Provider
    program: Path
    kubeconfig: Path

    @classmethod
    def of(cls, provider: Provider) -> Cluster:
        """The running cluster of a provider."""
        return cls(provider, provider.kubectl(), provider.kubeconfig())

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl; its standard output.

        Raises
        ------
        ClusterError
            With kubectl's message.
        """
        done = kubectl.run(self.program, self.kubeconfig, *arguments)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def build(provider: Provider, name: str) -> BuiltImage:
    """Build `trainer` or `operator`; the cluster need not run."""
    return provider.build_image(name, ROOT / f"Dockerfile.{name}", ROOT, {})


def install(cluster: Cluster, images: Mapping[str, BuiltImage], progress: Progress) -> str:
    """Make both images available, install the operator and wait until it is ready.

    Returns
    -------
    str
        The reference by which pods name the trainer's image: by digest where there is a registry.
    """
    operator = cluster.provider.load_image(images["operator"])
    trainer = cluster.provider.load_image(images["trainer"])
    with progress.stage("installing the operator", "install operator"):
        with overlay(ROOT / "deploy" / "kustomize" / "base", _with_operator(operator)) as folder:
            cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--kustomize={folder}")
        _await_operator(cluster)
    return trainer


def _await_operator(cluster: Cluster) -> None:
    where = f"--namespace={OPERATOR_NAMESPACE}"
    ready = ("rollout", "status", _DEPLOYMENT, where, f"--timeout={_ROLLOUT_SECONDS}s")
    try:
        cluster.kubectl(*ready)
    except ClusterError as error:
        lines = [str(error)]
        for arguments in (
            ("get", "pods", where),
            ("get", "events", where, "--field-selector=type=Warning"),
            ("logs", _DEPLOYMENT, where, f"--tail={_LOG_LINES}"),
        ):
            with suppress(ClusterError):  # a pod that never started has no log
                answer = cluster.kubectl(*arguments).strip().splitlines()
                lines.append(f"$ kubectl {' '.join(arguments)}")
                lines += answer[-_LOG_LINES:]
        raise ClusterError("the operator is not ready: " + "\n".join(lines)) from None


def _with_operator(reference: str) -> dict[str, object]:
    name, _, digest = reference.partition("@")
    image = {"name": _OPERATOR_IMAGE, "newName": name, "digest": digest}
    if not digest:
        name, _, tag = reference.rpartition(":")
        image = {"name": _OPERATOR_IMAGE, "newName": name, "newTag": tag}
    return {"images": [image]}


@contextmanager
def overlay(base: Path, settings: Mapping[str, object]) -> Iterator[Path]:
    """A kustomization over `base` in a temporary folder, for `kubectl apply -k`."""
    with TemporaryDirectory() as folder:
        # kustomize takes no absolute path.
        relative = os.path.relpath(base, Path(folder).resolve())
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative],
            **settings,
        }
        with (Path(folder) / "kustomization.yaml").open("w") as file:
            YAML().dump(kustomization, file)
        yield Path(folder)
