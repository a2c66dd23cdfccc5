"""Images of a user's own, on top of the project's."""

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

    Raises
    ------
    ClusterError
        If there is no Dockerfile, the name can't be an image's, or a build fails.
    """
    if not _NAME.fullmatch(name) or name in project.IMAGES:
        raise ClusterError(
            f"{name!r} can't be the name of an image of yours",
            "Use lower-case letters, digits and inner dashes; "
            f"{' and '.join(project.IMAGES)} are {project.NAME}'s own",
        )
    dockerfile = folder / "Dockerfile"
    if not dockerfile.is_file():
        raise ClusterError(
            f"{folder} has no Dockerfile",
            f"Begin one with `FROM {LOCAL_NAME}{_BASE}`, "
            f"and copy your task to {project.CODE_FOLDER}",
        )
    if _ON_BASE.search(dockerfile.read_text() + "\n"):
        checkout = project.CHECKOUT
        cluster.build_image(_BASE, checkout / f"Dockerfile.{_BASE}", checkout, {})
    return cluster.build_image(name, dockerfile, folder, {})
