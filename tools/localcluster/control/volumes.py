"""A StorageClass `standard` whose volumes are folders of the node.

The volumes are of kind `local`: unlike `hostPath` these honour `fsGroup`, so that a pod which
is not root can write, as it can on the storage of a real cluster. A folder belongs to root and
nobody else may write to it, so that a forgotten `fsGroup` fails here as it would there.

This is the arithmetic of it; `localcluster.control.provisioner` is the process.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from localcluster.base import project
from localcluster.cluster.component import Component
from localcluster.cluster.instance import Instance

PROVISIONER = f"{project.DOMAIN}/local"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"

STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": PROVISIONER,
    "volumeBindingMode": "WaitForFirstConsumer",
    "reclaimPolicy": "Delete",
    "allowVolumeExpansion": True,
}


def component(instance: Instance) -> Component:
    """Return the provisioner as a process of the cluster."""
    argv = [sys.executable, "-m", "localcluster.control.provisioner"]
    argv += ["--kubeconfig", str(instance.folder / "admin-inside.kubeconfig")]
    argv += ["--folder", str(instance.folder / "volumes")]
    return Component("storage", argv)


def volume_for(claim: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Return the PersistentVolume that `claim` waits for, or None where it waits for none.

    Parameters
    ----------
    claim
        A PersistentVolumeClaim as the API server returns it.
    folder
        The folder of all volumes; the volume's own is named as the volume.
    """
    metadata, spec = claim["metadata"], claim["spec"]
    annotations = metadata.get("annotations") or {}
    node = annotations.get(_SELECTED_NODE)
    ours = annotations.get(_STORAGE_PROVISIONER) == PROVISIONER
    if not ours or node is None or spec.get("volumeName") or metadata.get("deletionTimestamp"):
        return None
    name = f"pvc-{metadata['uid']}"
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
            "volumeMode": "Filesystem",
            "local": {"path": str(folder / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }


def expansion_of(claim: dict[str, Any]) -> str | None:
    """Return the size that a bound `claim` should grow to, or None where it has it."""
    granted = (claim.get("status", {}).get("capacity") or {}).get("storage")
    wanted: str = claim["spec"]["resources"]["requests"]["storage"]
    if granted is None or bytes_of(wanted) <= bytes_of(granted):
        return None
    return wanted


_UNITS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def bytes_of(quantity: str) -> Decimal:
    """Return the number of bytes in a Kubernetes quantity such as `1Gi` or `500M`."""
    binary = quantity.endswith("i")
    number = quantity.removesuffix("i").rstrip("kKMGTPE")
    unit = quantity.removesuffix("i")[len(number) :].replace("K", "k")
    return Decimal(number) * Decimal(1024 if binary else 1000) ** _UNITS[unit]
