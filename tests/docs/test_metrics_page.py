"""docs/reference/metrics.md has each metric that the operator serves, and no other."""

from __future__ import annotations

import re

from dtjob_operator.run.metrics import Metrics, State
from dtjob_operator.terms import kinds
from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "reference" / "metrics.md"
ROW = re.compile(r"^\| `(dtjob_\w+)` \| (\w+) \| (.+?) \| (\S.+) \|$", re.MULTILINE)
COUNTED = ("counter", "histogram")


def served() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each metric, of a registry in which everything has happened once."""
    metrics = Metrics()
    metrics.show(State([], [], [], list))
    metrics.observe_request("get", kinds.JOB, 200)
    text = metrics.exposition().decode()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for sample, given in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(sample, set()).update(re.findall(r'(\w+)="', given))
    return {
        name: (kind, frozenset(labels.get(name) or labels.get(f"{name}_count") or ()))
        for name, kind in types.items()
    }


def test_each_metric_is_explained_with_its_type_and_labels() -> None:
    shown = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _meaning in ROW.findall(PAGE.read_text())
    }
    expected = served()
    counted = {name for name, (kind, _labels) in expected.items() if kind in COUNTED}
    beginnings = {f"{name.removesuffix('_total')}_created" for name in counted}
    assert shown == {name: what for name, what in expected.items() if name not in beginnings}
