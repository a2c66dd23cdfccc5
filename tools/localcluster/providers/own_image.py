"""Images of a user's own, on top of the project's, and the project's from a checkout."""

from __future__ import annotations

import re
from pathlib import Path

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.images.built import LOCAL_NAME, BuiltImage
from localcluster.providers.protocol import Provider

_BASE = project.BASE_IMAGE
_NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
_ON_BASE = re.compile(
    rf"^\s*FROM\s+(?:--\S+\s+)*{LOCAL_NAME}{_BASE}\s", re.MULTILINE | re.IGNORECASE
)


def build(cluster: Provider, folder: Path, name: str) -> BuiltImage:
    """Build a folder's Dockerfile, and before it the project's that it may be built on.

    The checkout itself has one for each of the project's images, by its name.

    Raises
    ------
    ClusterError
        If there is no Dockerfile, the name can't be an image's, or a build fails.
    """
    if name in project.IMAGES and folder.resolve() == project.CHECKOUT:
        return _build_own(cluster, name)
    if not _NAME.fullmatch(name) or name in project.IMAGES:
        raise ClusterError(
            f"{name!r} can't be the name of an image of yours",
            "Use lower-case letters, digits and inner dashes; "
            f"{' and '.join(project.IMAGES)} are {project.NAME}'s own, of {project.CHECKOUT} alone",
        )
    dockerfile = folder / "Dockerfile"
    if not dockerfile.is_file():
        raise ClusterError(
            f"{folder} has no Dockerfile",
            f"Begin one with `FROM {LOCAL_NAME}{_BASE}`, "
            f"and copy your task to {project.CODE_FOLDER}",
        )
    if _ON_BASE.search(dockerfile.read_text() + "\n"):
        _build_own(cluster, _BASE)
    return cluster.build_image(name, dockerfile, folder, {})


def _build_own(cluster: Provider, name: str) -> BuiltImage:
    """One of the project's."""
    checkout = project.CHECKOUT
    return cluster.build_image(name, checkout / f"Dockerfile.{name}", checkout, {})
