"""What the kubelets of one cluster are started with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.cluster.nodes import Node
from localcluster.node import kubelet

pytestmark = pytest.mark.usefixtures("empty_machine")

GRACE_SECONDS = 20
"""After which the controller manager takes a node of two for lost."""


def config(node: Node) -> dict[str, Any]:
    argv = kubelet.component(node).argv
    (path,) = (each.removeprefix("--config=") for each in argv if each.startswith("--config="))
    read: dict[str, Any] = json.loads((node.folder / path).read_text())
    return read


def test_two_kubelets_share_nothing_but_the_authority_and_the_dns_server() -> None:
    near, far = nodes.every(Instance("a", 3, node_count=2))
    one, other = config(near), config(far)
    for key in ("cgroupRoot", "tlsCertFile", "tlsPrivateKeyFile", "podLogsDir", "resolvConf"):
        assert one[key] != other[key]
    assert one["authentication"] == other["authentication"]
    assert one["clusterDNS"] == other["clusterDNS"]
    alike = set(kubelet.component(near).argv) & set(kubelet.component(far).argv)
    assert {each.partition("=")[0] for each in alike if "=" in each} == {"--cert-dir"}


def test_a_kubelet_renews_its_lease_often_enough_not_to_be_taken_for_lost() -> None:
    """It does so after a quarter of its duration; one renewal, or two, may fail."""
    for node in nodes.every(Instance("a", 3, node_count=2)):
        assert config(node)["nodeLeaseDurationSeconds"] / 4 * 3 < GRACE_SECONDS
    assert "nodeLeaseDurationSeconds" not in config(nodes.first(Instance("b", 4)))
