"""What the image builder's store (containers/storage, driver overlay) has of an image."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.base.errors import ClusterError


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Parameters
    ----------
    digest
        Of its uncompressed archive.
    folder
        What overlayfs lays over the layers below it.
    """

    digest: str
    folder: Path


@dataclass(frozen=True)
class StoredImage:
    """An image as the builder has it.

    Parameters
    ----------
    manifest, config
        The very bytes that its digests are of.
    layers
        The lowest first.
    """

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]


def read(store: Path, identifier: str) -> StoredImage:
    """Read the image whose configuration has the digest `identifier`.

    Raises
    ------
    ClusterError
        If the store has no such image, or not as this module expects it.
    """
    try:
        top = _by_id(store / "overlay-images" / "images.json")[_hex(identifier)]["layer"]
        known = _by_id(store / "overlay-layers" / "layers.json")
        layers: list[Layer] = []
        while top:
            layers.insert(0, Layer(known[top]["diff-digest"], store / "overlay" / top / "diff"))
            top = known[top].get("parent")
        folder = store / "overlay-images" / _hex(identifier)
        manifest = (folder / "manifest").read_bytes()
        named = [each["digest"] for each in json.loads(manifest)["layers"]]
        if named != [layer.digest for layer in layers]:
            raise ClusterError(f"image {identifier} in {store} has other layers than it names")
        coded = base64.b64encode(identifier.encode()).decode()
        return StoredImage(manifest, (folder / f"={coded}").read_bytes(), tuple(layers))
    except (OSError, KeyError) as error:
        raise ClusterError(f"image {identifier} can't be read in {store}: {error!r}") from error


def _by_id(listed: Path) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads(listed.read_text())}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
