"""Nodes of a cluster of real binaries: which of them can be lost, and how many there are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.cluster.state import Record, boot_id, holder_file, write_record
from localcluster.install import binaries, packages
from localcluster.providers.local import LocalProvider
from localcluster.run import launch

pytestmark = pytest.mark.usefixtures("empty_machine")


def running(node_count: int) -> LocalProvider:
    """A cluster whose holder is this very process."""
    cluster = Instance("a", 3, node_count)
    cluster.holds.mkdir(parents=True)
    holder_file(cluster.folder).write_text(Path("/proc/self/stat").read_text())
    write_record(cluster.folder, Record(3, boot_id(), linked=True, nodes=node_count))
    return LocalProvider(cluster.name, Progress(Console(file=io.StringIO())))


@pytest.mark.parametrize(("node_count", "number"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_what_is_no_other_node_can_not_be_lost(node_count: int, number: int) -> None:
    cluster = running(node_count)
    for change in (cluster.kill_node, cluster.start_node):
        with pytest.raises(ClusterError, match=f"no node {number} that can be lost"):
            change(number)


@pytest.mark.parametrize("power_off", [False, True])
def test_a_node_that_is_lost_already_is_left_as_it_is(power_off: bool) -> None:
    cluster = running(2)
    first = nodes.first(Instance("a", 3))
    off = {"pid": None, "starts": 1, "ended": "ended by SIGKILL"}
    first.status_file.write_text(json.dumps({"node-2": off}))
    cluster.kill_node(2, power_off=power_off)
    assert not list(first.cluster.holds.iterdir())


def test_a_cluster_that_runs_gets_no_further_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "require_root", lambda _: None)
    monkeypatch.setattr(packages, "ensure", lambda *_: None)
    monkeypatch.setattr(binaries, "ensure", lambda *_: None)
    monkeypatch.setattr(launch, "await_usable", lambda _: None)
    with pytest.raises(ClusterError, match="runs with 1 node, and 2 are asked for"):
        running(1).up(node_count=2)
