"""An image in the store of this machine's builder, and what it is called there."""

from __future__ import annotations

from dataclasses import dataclass

from localcluster.base import project

LOCAL_NAME = f"localhost/{project.NAME}/"
"""What precedes the name of an image in the builder's store: so others can be built on it."""


@dataclass(frozen=True)
class BuiltImage:
    """An image in the store of this machine's builder.

    Parameters
    ----------
    name
        Repository below the project's, e.g. `trainer`.
    identifier
        Digest of its configuration, `sha256:…`; equal content gives an equal one.
    """

    name: str
    identifier: str

    @property
    def tag(self) -> str:
        """A tag that changes with the content."""
        return self.identifier.removeprefix("sha256:")[:12]
