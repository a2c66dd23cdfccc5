"""What is noted of a cluster's processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.run.process_manager import noted

pytestmark = pytest.mark.usefixtures("empty_machine")

CLUSTER = Instance("a", 3, node_count=2)
FIRST, SECOND = nodes.every(CLUSTER)
RUNNING = {"pid": 7, "starts": 1, "ended": ""}
ENDED = {"pid": None, "starts": 1, "ended": "ended by SIGKILL"}


def note(**processes: Any) -> None:
    for node, found in ((FIRST, processes["first"]), (SECOND, processes["second"])):
        node.folder.mkdir(parents=True, exist_ok=True)
        node.status_file.write_text(json.dumps(found))


def test_the_processes_of_all_nodes_are_a_clusters() -> None:
    assert noted(CLUSTER) == {}
    note(first={"node-2": RUNNING}, second={"kubelet-2": ENDED})
    assert noted(CLUSTER) == {"node-2": RUNNING, "kubelet-2": ENDED}


def test_a_node_without_power_has_no_processes_whatever_it_last_noted() -> None:
    note(first={"node-2": ENDED}, second={"kubelet-2": RUNNING})
    assert noted(CLUSTER) == {"node-2": ENDED}
