"""What a cluster that starts is waited for by."""

from __future__ import annotations

import json

import pytest

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.run import launch

pytestmark = pytest.mark.usefixtures("empty_machine")

CLUSTER = Instance("a", 3, node_count=2)
FIRST, SECOND = nodes.every(CLUSTER)


@pytest.fixture
def without_second(monkeypatch: pytest.MonkeyPatch) -> Instance:
    """A cluster that has all but its second node."""
    CLUSTER.holds.mkdir(parents=True)
    CLUSTER.kubeconfig.touch()
    FIRST.status_file.write_text(json.dumps({"coredns": {}}))
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {}}

    def get(_: Instance, path: str) -> str | None:
        return None if path.endswith(SECOND.name) else json.dumps(ready)

    monkeypatch.setattr(launch, "_get", get)
    return CLUSTER


def test_every_node_is_waited_for(without_second: Instance) -> None:
    assert launch.unusable_because(without_second) == f"node {SECOND.name} is not there"


@pytest.mark.parametrize("held", [SECOND.machine, SECOND.process("kubelet")])
def test_but_not_one_that_somebody_has_killed(without_second: Instance, held: str) -> None:
    (without_second.holds / held).touch()
    assert launch.unusable_because(without_second) is None
