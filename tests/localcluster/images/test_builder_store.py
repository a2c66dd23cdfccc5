"""Images are read from the builder's store, or refused."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.images import builder_store, oci


def store(folder: Path, layers: list[str]) -> str:
    """Write an image of these layers as the builder keeps it; its identifier."""
    config, digests = b'{"os": "linux"}', [oci.digest(name.encode()) for name in layers]
    identifier = oci.digest(config)
    own = identifier.removeprefix("sha256:")
    images = folder / "overlay-images"
    (images / own).mkdir(parents=True)
    (images / "images.json").write_text(json.dumps([{"id": own, "layer": layers[-1]}]))
    manifest = {"layers": [{"digest": digest} for digest in digests]}
    (images / own / "manifest").write_bytes(oci.to_json(manifest))
    (images / own / f"={b64encode(identifier.encode()).decode()}").write_bytes(config)
    below = [None, *layers[:-1]]
    rows = [
        {"id": name, "diff-digest": digest} | ({"parent": parent} if parent else {})
        for name, digest, parent in zip(layers, digests, below, strict=True)
    ]
    (folder / "overlay-layers").mkdir()
    (folder / "overlay-layers" / "layers.json").write_text(json.dumps(rows[::-1]))
    return identifier


def test_an_image_is_read_from_the_builders_store_lowest_layer_first(tmp_path: Path) -> None:
    read = builder_store.read(tmp_path, store(tmp_path, ["base", "middle", "top"]))
    folders = [layer.folder for layer in read.layers]
    assert folders == [tmp_path / "overlay" / name / "diff" for name in ("base", "middle", "top")]
    assert read.layers[0].digest == oci.digest(b"base")
    assert read.config == b'{"os": "linux"}'


def test_a_store_that_is_not_as_expected_is_an_error(tmp_path: Path) -> None:
    identifier = store(tmp_path, ["base", "top"])
    with pytest.raises(ClusterError, match="image sha256:other can't be read"):
        builder_store.read(tmp_path, "sha256:other")
    layers = tmp_path / "overlay-layers" / "layers.json"
    layers.write_text(json.dumps([{"id": "top", "diff-digest": oci.digest(b"top")}]))
    with pytest.raises(ClusterError, match="has other layers than it names"):
        builder_store.read(tmp_path, identifier)
    layers.unlink()
    with pytest.raises(ClusterError, match="can't be read"):
        builder_store.read(tmp_path, identifier)
