"""Names, folders and addresses of a cluster's nodes."""

from __future__ import annotations

from itertools import combinations

import pytest

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance

pytestmark = pytest.mark.usefixtures("empty_machine")

CLUSTER = Instance("a", 3, node_count=nodes.MOST_NODES)


def test_a_cluster_has_one_node_or_more() -> None:
    assert nodes.every(Instance("a", 3)) == [nodes.first(Instance("a", 3))]
    assert nodes.every(CLUSTER) == [nodes.first(CLUSTER), *nodes.others(CLUSTER)]
    assert [node.number for node in nodes.every(CLUSTER)] == [1, 2]


def test_nodes_share_no_address_name_or_folder() -> None:
    for one, other in combinations(nodes.every(CLUSTER), 2):
        for unique in (
            lambda node: node.name,
            lambda node: node.process("kubelet"),
            lambda node: node.folder,
            lambda node: node.status_file,
            lambda node: node.content,
            lambda node: node.cgroup,
            lambda node: node.bridge_address,
            lambda node: node.lan_address,
        ):
            assert unique(one) != unique(other)
        assert not one.pods.overlaps(other.pods)


def test_the_addresses_of_nodes_lie_in_the_clusters_block_and_nothing_else_has_them() -> None:
    apart = [CLUSTER.services, CLUSTER.link, CLUSTER.lan]
    for node in nodes.every(CLUSTER):
        assert node.pods.subnet_of(CLUSTER.block)
        assert not any(node.pods.overlaps(network) for network in apart)
        assert node.lan_address in CLUSTER.lan
    assert nodes.first(CLUSTER).bridge_address == CLUSTER.bridge_address


def test_what_down_removes_holds_all_of_every_node() -> None:
    """But for the images."""
    for node in nodes.others(CLUSTER):
        assert CLUSTER.folder in node.folder.parents
        assert node.cgroup.startswith(f"{CLUSTER.cgroup}/")


def test_a_second_node_has_nothing_of_a_cluster_that_is_named_as_it() -> None:
    second, alike = nodes.Node(CLUSTER, 2), nodes.first(Instance("a-2", 4))
    assert second.name == alike.name, "which is why this is a question"
    assert second.content != alike.content
    assert second.folder != alike.folder
    assert second.cgroup != alike.cgroup
