"""The image of pod sandboxes, made here: one static binary in an OCI archive."""

from __future__ import annotations

import platform

from localcluster.base import project
from localcluster.images import oci
from localcluster.install import binaries

REFERENCE = f"localhost/{project.NAME}-pause:{binaries.PAUSE.version}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive() -> bytes:
    """Return the OCI archive of the pause image."""
    layer = oci.tar({"pause": binaries.path(binaries.PAUSE, "pause").read_bytes()}, mode=0o755)
    config = oci.to_json(
        {
            "os": "linux",
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [oci.digest(layer)]},
        }
    )
    manifest = oci.to_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{oci.MEDIA_TYPE}.manifest.v1+json",
            "config": oci.descriptor("config.v1+json", config),
            "layers": [oci.descriptor("layer.v1.tar", layer)],
        }
    )
    return oci.archive(REFERENCE, manifest, [config, layer])
