"""Names and addresses of clusters."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from localcluster.base.errors import ClusterError
from localcluster.cluster import instance
from localcluster.cluster.state import Record, boot_id, write_record

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_the_addresses_of_a_cluster_lie_in_its_block() -> None:
    for slot in range(32):
        cluster = instance.Instance("a", slot)
        parts = [cluster.services, cluster.link, cluster.lan]
        assert all(part.subnet_of(cluster.block) for part in parts)
        assert not any(a.overlaps(b) for a in parts for b in parts if a is not b)
        assert len(cluster.interface) <= 15


def test_a_used_block_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = instance.allocate("a")
    assert instance.allocate("a") == usual
    monkeypatch.setattr(instance, "_routed_networks", lambda: [usual.services])
    beside = instance.allocate("a")
    assert beside.slot != usual.slot
    write_record(instance.state_folder("b"), Record(slot=beside.slot, boot=boot_id()))
    third = instance.allocate("a")
    assert third.slot not in (usual.slot, beside.slot)
    monkeypatch.setattr(instance, "_routed_networks", lambda: [IPv4Network("10.0.0.0/8")])
    with pytest.raises(ClusterError, match="no address block"):
        instance.allocate("a")


def test_routes_are_read_and_the_default_is_none() -> None:
    listed: list[dict[str, object]] = [
        {"dst": "default"},
        {"dst": "10.1.2.0/24"},
        {"dst": "10.9.9.9", "type": "local"},
    ]
    assert instance.routed_networks(listed) == [
        IPv4Network("10.1.2.0/24"),
        IPv4Network("10.9.9.9/32"),
    ]


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 31, "a/b", "../a"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="can't be the name of a cluster"):
        instance.state_folder(name)
