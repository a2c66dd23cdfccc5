"""Command lines of the control plane."""

from __future__ import annotations

import pytest

from localcluster.cluster.instance import Instance
from localcluster.control import controlplane


def test_the_api_server_is_where_pods_look_for_it() -> None:
    cluster = Instance("a", 3)
    argv = controlplane.api_server(cluster).argv
    assert f"--service-cluster-ip-range={cluster.services}" in argv
    assert "--secure-port=443" in argv
    assert cluster.kubernetes_service == next(cluster.services.hosts())


@pytest.mark.parametrize(("node_count", "quick"), [(1, False), (2, True)])
def test_a_lost_node_is_noticed_soon_where_one_can_be_lost(node_count: int, quick: bool) -> None:
    """Elsewhere as upstream has it: a machine that stands still for a while is no loss."""
    argv = controlplane.controller_manager(Instance("a", 3, node_count)).argv
    assert any(each.startswith("--node-monitor") for each in argv) is quick
