"""Command lines of the control plane."""

from __future__ import annotations

from localcluster.cluster.instance import Instance
from localcluster.control import controlplane


def test_the_api_server_is_where_pods_look_for_it() -> None:
    cluster = Instance("a", 3)
    argv = controlplane.api_server(cluster).argv
    assert f"--service-cluster-ip-range={cluster.services}" in argv
    assert "--secure-port=443" in argv
    assert cluster.kubernetes_service == next(cluster.services.hosts())
