"""Builds dtjob's two images from a checkout and installs the operator into a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from localcluster import kubectl
from localcluster.errors import ClusterError
from localcluster.progress import Progress
from localcluster.providers.base import BuiltImage, Provider

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "dtjob-system"
_OPERATOR_IMAGE = "ghcr.io/dtjob/operator"
_ROLLOUT_SECONDS = 180


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
            With what kubectl said.
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
        cluster.kubectl(
            "rollout",
            "status",
            "deployment/dtjob-operator",
            f"--namespace={OPERATOR_NAMESPACE}",
            f"--timeout={_ROLLOUT_SECONDS}s",
        )
    return trainer


def _with_operator(reference: str) -> dict[str, object]:
    name, _, digest = reference.partition("@")
    image = {"name": _OPERATOR_IMAGE, "newName": name, "digest": digest}
    if not digest:
        name, _, tag = reference.rpartition(":")
        image = {"name": _OPERATOR_IMAGE, "newName": name, "newTag": tag}
    return {"images": [image]}


@contextmanager
def overlay(base: Path, settings: Mapping[str, object]) -> Iterator[Path]:
    """A kustomization over `base` in a temporary folder, for ``kubectl apply -k``."""
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
