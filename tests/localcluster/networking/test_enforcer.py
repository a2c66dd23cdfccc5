"""Whose pods an enforcer follows."""

from __future__ import annotations

import pytest

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.networking import enforcer

pytestmark = pytest.mark.usefixtures("empty_machine")


def test_every_enforcer_knows_the_pods_of_all_nodes() -> None:
    """What a policy of a pod here names may be there."""
    every = nodes.every(Instance("a", 3, node_count=2))
    for node in every:
        argv = enforcer.component(node).argv
        named = [argv[index + 1] for index, each in enumerate(argv) if each == "--node"]
        assert named == [each.name for each in every]
