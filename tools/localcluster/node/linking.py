"""Images get from the builder to the node by hard links.

The builder and containerd keep a layer in the same form, a folder that overlayfs lays over the ones
below it, and both do so in one file system. So a layer is linked file by file, and nothing of it is
packed, copied or unpacked: of torch's 6 GB that took minutes, and as much disk three times over.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from localcluster.base.errors import ClusterError
from localcluster.images import oci
from localcluster.images.builder_store import StoredImage
from localcluster.node.ctr import Client

_KNOWN_SECONDS = 60.0
# Set by the kubelet's side of containerd on the images that it has taken notice of.
_NOTICED = 'labels."io.cri-containerd.image"==managed'
# `ctr` marks what it makes so that containerd never removes it; an image protects its layers.
_KEPT_FOR_EVER = "containerd.io/gc.root"
_UNFINISHED = "-unfinished"


def load(client: Client, image: StoredImage, name: str) -> str:
    """Give the node an image, unless it has it, and return the reference that pods use.

    One call at a time. One that is ended leaves no layer behind that containerd would keep for
    ever; what one left that was killed goes with the next.

    Parameters
    ----------
    client
        Of the cluster's containerd.
    image
        The image in the builder's store.
    name
        What to call it, without tag and digest.

    Raises
    ------
    ClusterError
        If a layer can't be linked, or containerd refuses the image.
    """
    reference = f"{name}@{oci.digest(image.manifest)}"
    if not client.images(f"name=={reference}"):
        names = oci.chain(layer.digest for layer in image.layers)
        _remove_unfinished(client)
        known = _snapshots(client)
        new = [index for index, name in enumerate(names) if name not in known]
        try:
            for index in new:
                below = names[index - 1 : index] if index else []
                _link(client, image.layers[index].folder, names[index], below)
            archive = oci.archive(reference, image.manifest, [image.config])
            client("images", "import", "-", stdin=archive)
            _let_go(client, names)  # all: a call that was killed may have left one
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(ClusterError):
                _remove_unfinished(client)
                _let_go(client, _snapshots(client) - known)
            raise
    _await_notice(client, reference)
    return reference


def _snapshots(client: Client) -> set[str]:
    """Return the names of the layers, with all below them, that containerd has complete."""
    return {row[0] for row in _rows(client) if row[-1] == "Committed"}


def _remove_unfinished(client: Client) -> None:
    for row in _rows(client):
        if row[0].endswith(_UNFINISHED):
            client("snapshots", "rm", row[0])


def _let_go(client: Client, names: Iterable[str]) -> None:
    """Leave layers to containerd, which removes those that no image has."""
    for name in names:
        client("snapshots", "label", name, f"{_KEPT_FOR_EVER}=")


def _rows(client: Client) -> list[list[str]]:
    return [line.split() for line in client("snapshots", "ls").splitlines()[1:]]


def _link(client: Client, layer: Path, name: str, below: list[str]) -> None:
    unfinished = name + _UNFINISHED
    mounts = json.loads(client("snapshots", "prepare", "--mounts", unfinished, *below))
    folder = written_folder(mounts)
    argv = ["cp", "--archive", "--link", "--no-target-directory", str(layer), str(folder)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"layer {layer} can't be linked: {done.stderr.strip()[-300:]}")
    client("snapshots", "commit", name, unfinished)


def written_folder(mounts: list[dict[str, Any]]) -> Path:
    """Return the folder that holds what is written to a snapshot, given how to mount it."""
    (mount,) = mounts
    if mount["Type"] == "bind":  # a lowest layer
        return Path(mount["Source"])
    (upper,) = (each for each in mount["Options"] if each.startswith("upperdir="))
    return Path(upper.removeprefix("upperdir="))


def _await_notice(client: Client, reference: str) -> None:
    deadline = time.monotonic() + _KNOWN_SECONDS
    while not client.images(f"name=={reference},{_NOTICED}"):
        if time.monotonic() > deadline:
            raise ClusterError(f"the kubelet's containerd takes no notice of {reference}")
        time.sleep(0.05)
