"""A registry on the cluster's loopback address, between the image builder and containerd.

Pods name images ``127.0.0.1:5000/dtjob/...@sha256:...`` in every cluster; the machine pushes to the
same registry by the cluster's address. All clusters share the folder with the blobs.
"""

from __future__ import annotations

import json

from localcluster.component import Component, answers
from localcluster.instance import REGISTRY_PORT, Instance
from localcluster.paths import images_folder
from localcluster.state import write_atomically

PULL_HOST = f"127.0.0.1:{REGISTRY_PORT}"


def push_host(instance: Instance) -> str:
    """Return host and port of the registry for clients on the machine."""
    return f"{instance.address}:{REGISTRY_PORT}"


def component(instance: Instance) -> Component:
    """Write the registry's configuration and return it."""
    blobs = images_folder() / "registry"
    blobs.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(blobs)},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": {"addr": f"0.0.0.0:{REGISTRY_PORT}"},
    }
    config = instance.folder / "registry.json"  # JSON is YAML
    write_atomically(config, json.dumps(settings, indent=1))
    argv = ["docker-registry", "serve", str(config)]
    return Component("registry", argv, answers(f"http://{PULL_HOST}/v2/"))
