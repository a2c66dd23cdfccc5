"""docs/manifest.md has every field of the CRD, with its default, its bounds and what may change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from dtjob_api.schema.crd import job_crd
from dtjob_api.schema.validation import validate
from tests.support.checkout import ROOT
from tests.support.rules.job_transitions import JOB, RUNNING, SUSPENDED
from tests.support.rules.transitions import REMOVED, edited

Json = dict[str, Any]

(VERSION,) = job_crd()["spec"]["versions"]
SPEC: Json = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
WHOLE = {"spec.workers.resources", "spec.autoscaling.behavior"}
"""Objects that have one row."""


@dataclass(frozen=True)
class Row:
    """A field as the page has it."""

    path: str
    default: str
    admitted: str
    change: str


def _rows() -> list[Row]:
    found, section = [], ""
    for line in (ROOT / "docs" / "manifest.md").read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if section.startswith("spec") and line.startswith("| `"):
            name, default, admitted, change, _ = (cell.strip() for cell in line.split("|")[1:-1])
            found.append(Row(f"{section}.{name.strip('`')}", default.strip("`"), admitted, change))
    return found


def _fields(schema: Json, path: str, *, required: bool) -> dict[str, tuple[Json, bool]]:
    properties = schema.get("properties")
    if not properties or path in WHOLE:
        return {path: (schema, required)}
    return {
        found: field
        for name, child in properties.items()
        for found, field in _fields(
            child, f"{path}.{name}", required=name in schema.get("required", [])
        ).items()
    }


ROWS = _rows()
FIELDS = _fields(SPEC, "spec", required=False)
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)


def test_every_field_has_one_row() -> None:
    assert sorted(row.path for row in ROWS) == sorted(FIELDS)


@each_row
def test_default(row: Row) -> None:
    schema, required = FIELDS[row.path]
    default = schema.get("default", "")
    # An object that is empty by default is absent to a reader.
    stated = "" if default in ({}, []) else str(default)
    assert row.default == ("required" if required else stated)


@each_row
def test_admitted(row: Row) -> None:
    schema, _ = FIELDS[row.path]
    words = re.findall(r"`([^`]+)`", row.admitted)
    if "enum" in schema:
        assert words == schema["enum"]
    if "maxItems" in schema or "maxProperties" in schema:
        most = schema.get("maxItems", schema.get("maxProperties"))
        assert row.admitted == f"at most {most}"
    if schema.get("type") in ("integer", "number"):
        assert re.search(r"\d", row.admitted), "a number has bounds"
        _check_bounds(row, whole=schema["type"] == "integer")


def _check_bounds(row: Row, *, whole: bool) -> None:
    if found := re.fullmatch(r"(\S+) to (\S+)", row.admitted):
        inside = [float(found[1]), float(found[2])]
        outside = [_below(inside[0], whole), _above(inside[1], whole)]
    elif found := re.fullmatch(r"from (\S+)", row.admitted):
        inside = [float(found[1])]
        outside = [_below(inside[0], whole)]
    elif found := re.fullmatch(r"above (\S+)", row.admitted):
        inside, outside = [float(found[1]) + 1e-6], [float(found[1])]
    elif found := re.fullmatch(r"above (\S+), at most (\S+)", row.admitted):
        inside = [float(found[1]) + 1e-6, float(found[2])]
        outside = [float(found[1]), _above(float(found[2]), whole)]
    else:
        raise AssertionError(f"bounds that this test can't read: {row.admitted}")
    assert [value for value in inside if not _admits(row.path, value, whole)] == []
    assert [value for value in outside if _admits(row.path, value, whole)] == []


def _below(value: float, whole: bool) -> float:
    return value - 1 if whole else value * 0.99


def _above(value: float, whole: bool) -> float:
    return value + 1 if whole else value * 1.01


# Fields that bound one another.
_WITH = {
    "spec.autoscaling.minReplicas": "spec.autoscaling.maxReplicas",
    "spec.training.batchSize": "spec.privacy.datasetSize",
    "spec.training.learningRateSchedule.warmupSteps": "spec.training.steps",
}


def _admits(path: str, value: float, whole: bool) -> bool:
    written = int(value) if whole else value
    changes: Json = {path: written}
    if path in _WITH:
        changes[_WITH[path]] = min(written + 1, 10**9)
    return path not in {error.field for error in validate(edited(JOB, changes))}


def test_auto_or_a_number() -> None:
    (row,) = [row for row in ROWS if row.path == "spec.training.physicalBatchSize"]
    assert row.admitted == "`auto` or 1 to 1000000000"
    most = 1000000000
    values = (("auto", True), (1, True), (most, True), (most + 1, False), (0, False), ("a", False))
    for value, admitted in values:
        errors = validate(edited(JOB, {row.path: value}))
        assert (row.path not in {error.field for error in errors}) == admitted


OTHER: Json = {
    "spec.autoscaling.behavior": {"scaleDown": {"selectPolicy": "Min"}},
    "spec.autoscaling.metrics": REMOVED,
    "spec.imagePullSecrets": [{"name": "other"}],
    "spec.workers.resources": {"limits": {"cpu": "1"}},
    "spec.workers.template.env": [{"name": "OTHER", "value": "x"}],
    "spec.workers.template.envFrom": [{"secretRef": {"name": "other"}}],
    "spec.workers.template.volumes": REMOVED,
    "spec.workers.template.volumeMounts": REMOVED,
    "spec.workers.template.nodeSelector": {"other": "x"},
    "spec.workers.template.tolerations": [{"key": "other", "operator": "Exists"}],
    "spec.training.args": {"other": 1},
    "spec.training.physicalBatchSize": 32,
    "spec.storage.checkpoints.size": "4Gi",
}
"""Other values than those of the stored job, where a schema does not tell one."""
CHANGES = {"never": (True, True), "suspended": (True, False), "yes": (False, False)}
"""Whether a change is refused while the job runs, and while it is suspended."""


@each_row
def test_change(row: Row) -> None:
    schema, _ = FIELDS[row.path]
    if len(schema.get("enum", [])) == 1:
        assert row.change == "never"
        return
    refused = tuple(_refuses_change(row.path, stored) for stored in (RUNNING, SUSPENDED))
    assert refused == CHANGES[row.change]


def _refuses_change(path: str, stored: Json) -> bool:
    errors = validate(edited(stored, {path: _other(path)}), old=stored)
    transition = [
        error
        for error in errors
        if path.startswith(error.field)
        and re.search(r"never changes|changes only while|can grow but not shrink", error.message)
    ]
    return bool(transition)


def _other(path: str) -> Any:
    if path in OTHER:
        return OTHER[path]
    schema, _ = FIELDS[path]
    now: Any = JOB
    for key in path.split("."):
        now = now.get(key) if isinstance(now, dict) else None
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != now)
    if schema.get("type") in ("integer", "number"):
        return (now or 0) + 1
    return "other:other" if path.endswith("entrypoint") else "other"
