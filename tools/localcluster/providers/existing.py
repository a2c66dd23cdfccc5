"""Provider `existing`: a cluster that somebody else made and that a variable names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.progress import Progress
from localcluster.base.project import KUBECONFIG_VARIABLE, NAME, REGISTRY_VARIABLE
from localcluster.images import engine
from localcluster.images.built import BuiltImage
from localcluster.install import kubectl
from localcluster.providers.protocol import Capability, Status


class ExistingProvider:
    """A cluster that is used as it is: `up` checks that it answers, `down` leaves it alone."""

    kind = "existing"

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self._progress = progress

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What any cluster has, and images where a registry is named."""
        always = {Capability.STORAGE, Capability.SERVICE_ADDRESSES}
        return frozenset(always | ({Capability.IMAGES} if _registry() else set()))

    def obstacle(self) -> str | None:
        """Return a reason unless the variable is set."""
        return None if os.environ.get(KUBECONFIG_VARIABLE) else f"{KUBECONFIG_VARIABLE} is not set"

    def prepare(self) -> None:
        """Nothing is installed for a cluster that is there."""

    def up(self) -> None:
        """Check that the cluster answers."""
        version = kubectl.run(self.kubectl(), self.kubeconfig(), "version", "--output=json")
        if version.returncode != 0:
            raise ClusterError(
                f"the cluster of {self.kubeconfig()} does not answer: {version.stderr.strip()}",
                f"Correct {KUBECONFIG_VARIABLE} or unset it to have a cluster made",
            )

    def down(self, *, purge: bool = False) -> None:  # noqa: ARG002 - nothing here is ours to purge
        """Leave the cluster as it is."""
        self._progress.say(f"  the cluster of {self.kubeconfig()} is not ours and stays")

    def status(self) -> Status:
        """Tell whether the cluster answers."""
        ready = kubectl.run(self.kubectl(), self.kubeconfig(), "get", "--raw", "/readyz")
        state = "answers" if ready.returncode == 0 else "does not answer"
        summary = f"cluster of {self.kubeconfig()} (provider existing): {state}"
        return Status(ready.returncode == 0, summary, {"kubeconfig": str(self.kubeconfig())})

    def kubeconfig(self) -> Path:
        """Return the file that the variable names.

        Raises
        ------
        ClusterError
            If there is no such file.
        """
        path = Path(os.environ.get(KUBECONFIG_VARIABLE, "")).absolute()
        if not path.is_file():
            raise ClusterError(f"{KUBECONFIG_VARIABLE} names {path}, which is not a file")
        return path

    def kubectl(self) -> Path:
        """Return the machine's kubectl, or one built here."""
        return kubectl.find(self._progress)

    def build_image(
        self, name: str, dockerfile: Path, context: Path, build_args: Mapping[str, str]
    ) -> BuiltImage:
        """Build with the machine's container engine, unless the cluster could not get the image."""
        self._named_registry(name)
        return engine.build(self._progress, self._engine(), name, dockerfile, context, build_args)

    def load_image(self, image: BuiltImage) -> str:
        """Push to the registry that a variable names, from which the cluster can pull."""
        registry, runner = self._named_registry(image.name), self._engine()
        reference = f"{registry}/{NAME}/{image.name}:{image.tag}"
        with self._progress.stage(f"pushing image {image.name}", key=f"push {image.name}"):
            engine.run([runner, "tag", image.identifier, reference])
            engine.run([runner, "push", reference])
        return reference

    def _named_registry(self, image: str) -> str:
        registry = _registry()
        if registry is None:
            raise ClusterError(
                f"an existing cluster can't use image {image} of this machine",
                f"Set {REGISTRY_VARIABLE} to a registry that both can reach, e.g. host:5000",
            )
        return registry

    def _engine(self) -> str:
        found = engine.find()
        if found is None:
            raise CannotRunHere(
                "building images for an existing cluster needs Docker or Podman",
                "Start its engine",
            )
        return found


def _registry() -> str | None:
    return os.environ.get(REGISTRY_VARIABLE) or None
