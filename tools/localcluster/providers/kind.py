"""Provider `kind`: a cluster in a container of Docker or Podman."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.paths import cache_folder
from localcluster.base.progress import Progress
from localcluster.cluster.instance import checked_name
from localcluster.images import engine
from localcluster.images.built import LOCAL_NAME, BuiltImage
from localcluster.install import kubectl
from localcluster.providers.protocol import Capability, Status

_WAIT = "120s"
_START_SECONDS = 120.0


def create_argv(name: str, kubeconfig: Path) -> list[str]:
    """Return the command line that makes a cluster and waits for its node."""
    argv = ["kind", "create", "cluster", f"--name={name}", f"--wait={_WAIT}"]
    return [*argv, f"--kubeconfig={kubeconfig}"]


def delete_argv(name: str, kubeconfig: Path) -> list[str]:
    """Return the command line that removes a cluster; it succeeds if there is none."""
    return ["kind", "delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}"]


def export_argv(name: str, kubeconfig: Path) -> list[str]:
    """Return the command line that writes a running cluster's kubeconfig again."""
    return ["kind", "export", "kubeconfig", f"--name={name}", f"--kubeconfig={kubeconfig}"]


def load_argv(name: str, archive: Path) -> list[str]:
    """Return the command line that copies an image into the cluster's node.

    The archive of `save` serves both engines; `kind load docker-image` asks Docker alone.
    """
    return ["kind", "load", "image-archive", str(archive), f"--name={name}"]


class KindProvider:
    """A kind cluster, named after the project and its own name."""

    kind = "kind"
    capabilities = frozenset({Capability.IMAGES, Capability.STORAGE, Capability.SERVICE_ADDRESSES})

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = checked_name(name)
        self._cluster = f"{project.NAME}-{name}"
        self._progress = progress

    def obstacle(self) -> str | None:
        """Return a reason unless kind is installed, an engine answers and kubectl can be had."""
        if engine.find() is None:
            return "no Docker or Podman engine answers"
        if shutil.which("kind") is None:
            return "the program kind is not installed (https://kind.sigs.k8s.io)"
        return kubectl.obstacle()

    def prepare(self) -> None:
        """kind's node has everything."""

    def up(self) -> None:
        """Make the cluster, or start the one that is there, and write its kubeconfig."""
        runner = self._engine()
        self._kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if self._exists():
            if not self._runs():
                with self._progress.stage(f"starting kind cluster {self._cluster} again"):
                    engine.run([runner, "start", self._node])
                    self._await_node(runner)
            self._kind(export_argv(self._cluster, self._kubeconfig))
            return
        with self._progress.stage(f"kind cluster {self._cluster}", key="kind up"):
            self._kind(create_argv(self._cluster, self._kubeconfig))

    def down(self, *, purge: bool = False) -> None:  # noqa: ARG002 - images go with the node
        """Remove the cluster."""
        with self._progress.stage(f"removing kind cluster {self._cluster}"):
            self._kind(delete_argv(self._cluster, self._kubeconfig))
        self._kubeconfig.unlink(missing_ok=True)

    def status(self) -> Status:
        """Tell whether the cluster is there and its node runs."""
        state, details = "not there", {}
        if self.obstacle() is None and self._exists():
            state = "running" if self._runs() else "its node is stopped; `up` starts it"
            details = {"kubeconfig": str(self._kubeconfig)}
        summary = f"cluster {self.name} (provider kind): {state}"
        return Status(state == "running", summary, details)

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        if not self._kubeconfig.exists():
            self._kind(export_argv(self._cluster, self._kubeconfig))
        return self._kubeconfig

    def kubectl(self) -> Path:
        """Return the machine's kubectl, or one built here."""
        return kubectl.find(self._progress)

    def build_image(
        self, name: str, dockerfile: Path, context: Path, build_args: Mapping[str, str]
    ) -> BuiltImage:
        """Build with the engine that runs the cluster."""
        return engine.build(self._progress, self._engine(), name, dockerfile, context, build_args)

    def load_image(self, image: BuiltImage) -> str:
        """Copy an image into the node, under a name that changes with its content."""
        runner = self._engine()
        reference = f"{LOCAL_NAME}{image.name}:{image.tag}"
        archive = cache_folder() / f"kind-{self.name}-{image.name}.tar"
        with self._progress.stage(f"loading image {image.name}", key=f"load {image.name}"):
            engine.run([runner, "tag", image.identifier, reference])
            try:
                engine.run([runner, "save", f"--output={archive}", reference])
                self._kind(load_argv(self._cluster, archive))
            finally:
                archive.unlink(missing_ok=True)
        return reference

    @property
    def _kubeconfig(self) -> Path:
        return cache_folder() / "kind" / f"{self.name}.kubeconfig"

    @property
    def _node(self) -> str:
        """The container that is the only node."""
        return f"{self._cluster}-control-plane"

    def _runs(self) -> bool:
        argv = [self._engine(), "inspect", "--format={{.State.Running}}", self._node]
        return engine.run(argv).strip() == "true"

    def _await_node(self, runner: str) -> None:
        """Wait for the control plane of a node that was started again."""
        argv = [runner, "exec", self._node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"]
        argv += ["get", "--raw=/readyz"]
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                engine.run(argv)
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return

    def _exists(self) -> bool:
        return self._cluster in self._kind(["kind", "get", "clusters"]).split()

    def _engine(self) -> str:
        found = engine.find()
        if found is None:
            raise CannotRunHere("no Docker or Podman engine answers", "Start it")
        return found

    def _kind(self, argv: list[str]) -> str:
        os.environ["KIND_EXPERIMENTAL_PROVIDER"] = self._engine()
        return engine.run(argv)
