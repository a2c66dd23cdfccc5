"""Which volumes are made and grown for which claims."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from localcluster.control import volumes


def claim(**changes: Any) -> dict[str, Any]:
    annotations = {
        "volume.kubernetes.io/selected-node": "n",
        "volume.kubernetes.io/storage-provisioner": volumes.PROVISIONER,
    }
    return {
        "metadata": {"name": "c", "namespace": "s", "uid": "u", "annotations": annotations}
        | changes.pop("metadata", {}),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        | changes.pop("spec", {}),
        "status": changes.pop("status", {}),
    }


def test_a_claim_with_a_node_gets_a_volume_there(tmp_path: Path) -> None:
    volume = volumes.volume_for(claim(), tmp_path)
    assert volume
    assert volume["spec"]["local"] == {"path": str(tmp_path / "pvc-u")}
    assert volume["spec"]["claimRef"]["uid"] == "u"
    assert '"values": ["n"]' in json.dumps(volume["spec"]["nodeAffinity"])


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"annotations": None}},
        {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}},
        {"metadata": {"deletionTimestamp": "now"}},
        {"spec": {"volumeName": "pvc-u"}},
    ],
)
def test_no_volume_where_none_is_asked_for(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert volumes.volume_for(claim(**changes), tmp_path) is None


@pytest.mark.parametrize(
    ("granted", "expected"), [(None, None), ("1Gi", None), ("2Gi", None), ("900M", "1Gi")]
)
def test_a_claim_grows_and_never_shrinks(granted: str | None, expected: str | None) -> None:
    status = {"capacity": {"storage": granted}} if granted else {}
    assert volumes.expansion_of(claim(status=status)) == expected


@pytest.mark.parametrize(
    ("quantity", "size"), [("1Gi", 2**30), ("500M", 5 * 10**8), ("1.5Ki", 1536), ("12", 12)]
)
def test_quantities(quantity: str, size: int) -> None:
    assert volumes.bytes_of(quantity) == Decimal(size)
