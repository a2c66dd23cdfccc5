"""The image of pod sandboxes, made here: one static binary in an OCI archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from localcluster import binaries

REFERENCE = f"localhost/dtjob-pause:{binaries.PAUSE.version}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(target: Path) -> None:
    """Write the OCI archive of the pause image to `target`."""
    layer = _tar({"pause": binaries.path(binaries.PAUSE, "pause").read_bytes()}, mode=0o755)
    config = _json(
        {
            "os": "linux",
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    image = "application/vnd.oci.image"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{image}.manifest.v1+json",
            "config": _descriptor(f"{image}.config.v1+json", config),
            "layers": [_descriptor(f"{image}.layer.v1.tar", layer)],
        }
    )
    named = _descriptor(f"{image}.manifest.v1+json", manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [named | {"annotations": {"io.containerd.image.name": REFERENCE}}],
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
    }
    for blob in (layer, config, manifest):
        files["blobs/sha256/" + _digest(blob).removeprefix("sha256:")] = blob
    target.write_bytes(_tar(files, mode=0o644))


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
