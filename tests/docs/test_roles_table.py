"""The table of docs/cluster.md on who may do what is what user-roles.yaml grants."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML

from tests.support.checkout import ROOT

ROLES = ROOT / "deploy" / "kustomize" / "base" / "user-roles.yaml"
PAGE = ROOT / "docs" / "cluster.md"
ROW = re.compile(r"^\| `(dtjob-[\w-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
AGGREGATED = "rbac.authorization.k8s.io/aggregate-to-"
Row = tuple[str, frozenset[str], frozenset[str], frozenset[str]]


def granted() -> list[Row]:
    """Role, resources, verbs, and the roles of Kubernetes that take it in, by rule."""
    found: list[Row] = []
    for role in YAML(typ="safe").load_all(ROLES.read_text()):
        labels: dict[str, Any] = role["metadata"]["labels"]
        takers = frozenset(
            label.removeprefix(AGGREGATED)
            for label, value in labels.items()
            if label.startswith(AGGREGATED) and value == "true"
        )
        for rule in role["rules"]:
            assert rule["apiGroups"] == ["dtjob.dev"]
            what = frozenset(rule["resources"]), frozenset(rule["verbs"])
            found.append((role["metadata"]["name"], *what, takers))
    return found


def test_the_table_has_each_rule_and_no_other() -> None:
    shown: list[Row] = [
        (role, *(frozenset(re.findall(r"`([\w/-]+)`", cell)) for cell in cells))
        for role, *cells in ROW.findall(PAGE.read_text())
    ]
    assert shown == granted()


def test_who_may_change_jobs_may_see_them() -> None:
    verbs = {role: verbs for role, what, verbs, _ in granted() if "distributedtrainingjobs" in what}
    assert {"get", "list", "watch"} <= verbs["dtjob-edit"]
