"""Images in the form of the Open Container Initiative, as far as they are written here."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping

MEDIA_TYPE = "application/vnd.oci.image"


def digest(blob: bytes) -> str:
    """Return the name of a blob, `sha256:…`."""
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    """Return what refers to a blob."""
    return {"mediaType": f"{MEDIA_TYPE}.{media_type}", "digest": digest(blob), "size": len(blob)}


def to_json(value: object) -> bytes:
    """Return JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True).encode()


def archive(reference: str, manifest: bytes, blobs: Iterable[bytes]) -> bytes:
    """Return an archive that containerd imports as `reference`.

    Parameters
    ----------
    reference
        Name of the image.
    manifest
        Its manifest.
    blobs
        Its configuration and those of its layers that containerd lacks.
    """
    named = descriptor("manifest.v1+json", manifest)
    named["annotations"] = {"io.containerd.image.name": reference}
    files = {
        "oci-layout": to_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": to_json({"schemaVersion": 2, "manifests": [named]}),
    }
    for blob in (manifest, *blobs):
        files["blobs/sha256/" + digest(blob).removeprefix("sha256:")] = blob
    return tar(files, mode=0o644)


def tar(files: Mapping[str, bytes], mode: int) -> bytes:
    """Return an archive of `files`, all with the same mode, without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def chain(digests: Iterable[str]) -> list[str]:
    """Return the name of each layer together with all below it, given the layers' own digests."""
    names: list[str] = []
    for each in digests:
        names.append(digest(f"{names[-1]} {each}".encode()) if names else each)
    return names
