"""Images of a user's own, on top of the trainer's."""

from __future__ import annotations

import re
from pathlib import Path

from localcluster.built import LOCAL_NAME, BuiltImage
from localcluster.errors import ClusterError
from localcluster.providers.base import Provider

_ROOT = Path(__file__).resolve().parents[2]
_TRAINER = "trainer"
_OURS = frozenset({_TRAINER, "operator"})
_NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
_ON_TRAINER = re.compile(
    rf"^\s*FROM\s+(?:--\S+\s+)*{LOCAL_NAME}{_TRAINER}\s", re.MULTILINE | re.IGNORECASE
)


def build(cluster: Provider, folder: Path, name: str) -> BuiltImage:
    """Build a folder's Dockerfile, and before it the trainer that it may be built on.

    Raises
    ------
    ClusterError
        If there is no Dockerfile, the name can't be an image's, or a build fails.
    """
    if not _NAME.fullmatch(name) or name in _OURS:
        raise ClusterError(
            f"{name!r} can't be the name of an image of yours",
            "Use lower-case letters, digits and inner dashes; trainer and operator are dtjob's own",
        )
    dockerfile = folder / "Dockerfile"
    if not dockerfile.is_file():
        raise ClusterError(
            f"{folder} has no Dockerfile",
            f"Begin one with `FROM {LOCAL_NAME}{_TRAINER}`, and copy your task to /opt/dtjob/app/",
        )
    if _ON_TRAINER.search(dockerfile.read_text() + "\n"):
        cluster.build_image(_TRAINER, _ROOT / f"Dockerfile.{_TRAINER}", _ROOT, {})
    return cluster.build_image(name, dockerfile, folder, {})
