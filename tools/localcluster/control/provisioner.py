"""The provisioner of `localcluster.control.volumes`: makes, grows and deletes volumes.

Run by the cluster's daemon as `python -m localcluster.control.provisioner --kubeconfig FILE
--folder FOLDER`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch

from localcluster.control.volumes import PROVISIONER, STORAGE_CLASS, expansion_of, volume_for

# The client's helpers have no types; what comes out of them is plain JSON.
_Watch: Any = watch.Watch
_connect: Any = config.new_client_from_config
_WATCH_SECONDS = 60  # a watch ends after this, so everything is looked at again this often


class Provisioner:
    """Makes, grows and deletes volumes."""

    def __init__(self, api: Any, folder: Path) -> None:
        self._api = api
        self._folder = folder

    def reconcile_claim(self, claim: dict[str, Any]) -> None:
        """Do what a claim asks for; doing it twice changes nothing."""
        if volume := volume_for(claim, self._folder):
            Path(volume["spec"]["local"]["path"]).mkdir(parents=True, mode=0o755, exist_ok=True)
            _unless({409}, lambda: self._api.create_persistent_volume(volume))
            return
        size = expansion_of(claim)
        volume_name = claim["spec"].get("volumeName", "")
        if size is not None and volume_name == f"pvc-{claim['metadata']['uid']}":
            metadata, capacity = claim["metadata"], {"capacity": {"storage": size}}
            self._api.patch_persistent_volume(volume_name, {"spec": capacity})
            self._api.patch_namespaced_persistent_volume_claim_status(
                metadata["name"], metadata["namespace"], {"status": capacity}
            )

    def reconcile_volume(self, volume: dict[str, Any]) -> None:
        """Delete a volume of ours whose claim is gone."""
        metadata, spec = volume["metadata"], volume["spec"]
        ours = (metadata.get("annotations") or {}).get("pv.kubernetes.io/provisioned-by")
        released = volume.get("status", {}).get("phase") == "Released"
        if ours != PROVISIONER or not released:
            return
        if spec["persistentVolumeReclaimPolicy"] == "Delete":
            shutil.rmtree(spec["local"]["path"], ignore_errors=True)
            _unless({404}, lambda: self._api.delete_persistent_volume(metadata["name"]))


def _unless(expected: set[int], call: Callable[[], object]) -> None:
    try:
        call()
    except client.ApiException as error:
        if error.status not in expected:
            raise


def _follow(connection: Any, lister: Any, handle: Callable[[dict[str, Any]], None]) -> None:
    while True:
        for event in _Watch().stream(lister, timeout_seconds=_WATCH_SECONDS):
            if event["type"] in ("ADDED", "MODIFIED"):
                handle(connection.sanitize_for_serialization(event["object"]))


def main() -> None:
    """Provision until an error; the daemon starts the process again."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.control.provisioner")
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    arguments = parser.parse_args()
    connection = _connect(arguments.kubeconfig)
    classes: Any = client.StorageV1Api(connection)
    _unless({409}, lambda: classes.create_storage_class(STORAGE_CLASS))
    api = client.CoreV1Api(connection)
    provisioner = Provisioner(api, arguments.folder)
    failed = threading.Event()

    def follow(lister: Any, handle: Callable[[dict[str, Any]], None]) -> None:
        try:
            _follow(connection, lister, handle)
        finally:
            failed.set()

    claims = (api.list_persistent_volume_claim_for_all_namespaces, provisioner.reconcile_claim)
    volumes = (api.list_persistent_volume, provisioner.reconcile_volume)
    for lister, handle in (claims, volumes):
        threading.Thread(target=follow, args=(lister, handle), daemon=True).start()
    failed.wait()
    sys.exit(1)


if __name__ == "__main__":
    main()
