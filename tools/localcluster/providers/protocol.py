"""What every way of getting a cluster has to offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from localcluster.images.built import BuiltImage


class Capability(StrEnum):
    """Something that a test or a benchmark may need and not every provider has."""

    IMAGES = "images"
    """Images built on this machine get into pods."""
    STORAGE = "storage"
    """A default StorageClass with volumes that grow and honour fsGroup."""
    POD_ADDRESSES = "pod-addresses"
    """This machine reaches pods by their own addresses."""
    SERVICE_ADDRESSES = "service-addresses"
    """Every Service has a virtual address (headless ones and kubernetes.default need none)."""
    NODE_PROCESSES = "node-processes"
    """This machine sees the processes of pods and can signal them."""
    CONTROL_PLANE = "control-plane"
    """Single processes of the control plane can be stopped and started."""


@dataclass(frozen=True)
class Status:
    """What there is of a cluster.

    Parameters
    ----------
    running
        Whether it can be used now.
    summary
        One line for people.
    details
        Label → value, for people.
    """

    running: bool
    summary: str
    details: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """One way of getting a cluster. Every method may raise ClusterError."""

    @property
    def kind(self) -> str:
        """Which way it is."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What its clusters can do beyond running pods."""

    def obstacle(self) -> str | None:
        """Return why this provider can't work on this machine, or None if it can."""

    def prepare(self) -> None:
        """Install what the machine lacks for a cluster and for images, before both are begun."""

    def up(self) -> None:
        """Make the cluster usable; nothing happens if it is already."""

    def down(self, *, purge: bool = False) -> None:
        """Remove the cluster, whatever is left of it; with `purge` its cached images too."""

    def status(self) -> Status:
        """Look, without changing anything."""

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig of the running cluster."""

    def kubectl(self) -> Path:
        """Return a kubectl; where the machine has none, this may build it."""

    def build_image(
        self, name: str, dockerfile: Path, context: Path, build_args: Mapping[str, str]
    ) -> BuiltImage:
        """Build an image; the cluster need not run."""

    def load_image(self, image: BuiltImage) -> str:
        """Make an image available to pods and return the reference that they use.

        The reference names this very content, so it changes whenever the content does.
        """
