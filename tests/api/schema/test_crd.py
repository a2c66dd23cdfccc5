"""The generated CustomResourceDefinitions: committed as generated, structural, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dtjob_api.model import MAX_QUANTITY
from dtjob_api.schema import crd
from dtjob_api.schema.cel import is_true

Json = dict[str, Any]
CRDS = [crd.job_crd(), crd.ledger_crd()]
IDS = ["job", "ledger"]


def _schema(definition: Json) -> Json:
    schema: Json = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from _nodes(schema[key], f"{path}.{key}")


def test_committed_yaml_is_what_the_models_say() -> None:
    assert crd.main(["--check"]) == 0, "run `python -m dtjob_api.schema.crd`"


def test_check_fails_on_a_stale_file(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--directory", str(tmp_path)]) == 0
    assert crd.main(["--directory", str(tmp_path), "--check"]) == 0
    stale = tmp_path / "dtjob.dev_privacyledgers.yaml"
    stale.write_text(stale.read_text().replace("maxItems: 20", "maxItems: 21"))
    assert crd.main(["--directory", str(tmp_path), "--check"]) == 1
    assert "dtjob.dev_privacyledgers.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("text", crd.files().values(), ids=IDS)
def test_plain_kubectl_apply_can_hold_it(text: str) -> None:
    """`kubectl apply` keeps a copy in an annotation of at most 256 KiB."""
    assert len(text.encode()) < 150_000


@pytest.mark.parametrize("definition", CRDS, ids=IDS)
def test_schema_is_structural_and_everything_that_rules_iterate_is_bounded(
    definition: Json,
) -> None:
    for path, node in _nodes(_schema(definition)):
        assert not {"$ref", "anyOf", "title", "const"} & set(node), path
        assert node.get("default", 0) is not None, path
        assert not isinstance(node.get("exclusiveMinimum", False), float | str), path
        kind = node.get("type")
        assert kind or node.get("x-kubernetes-int-or-string"), path
        if kind == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@pytest.mark.rule(10)
@pytest.mark.parametrize("definition", CRDS, ids=IDS)
def test_transition_rules_stand_at_the_root(definition: Json) -> None:
    """Below the root, removing a field and writing it anew would never be compared."""
    for path, node in _nodes(_schema(definition)):
        for rule in node.get("x-kubernetes-validations", []):
            assert "oldSelf" not in rule["rule"] or path == "", path


@pytest.mark.parametrize("definition", CRDS, ids=IDS)
def test_every_rule_compiles_and_reports_a_field_that_exists(definition: Json) -> None:
    paths = {path for path, _ in _nodes(_schema(definition))}
    for path, node in _nodes(_schema(definition)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"]
            assert path + rule.get("fieldPath", "") in paths
            if path == "":
                assert "fieldPath" in rule, "at the root the API server would name <nil>"


def test_every_integer_of_a_ledger_is_bounded_where_a_double_is_exact() -> None:
    """Rules add and compare them with 64 bits; JSON readers hold them as doubles."""
    integers = [(path, node) for path, node in _nodes(_schema(CRDS[1])) if _is_integer(node)]
    assert len(integers) > 25
    for path, node in integers:
        assert -(2**53) <= node["minimum"] <= node["maximum"] <= 2**53, path


def test_every_integer_of_a_job_s_spec_is_bounded_where_a_double_is_exact() -> None:
    spec = _schema(CRDS[0])["properties"]["spec"]
    integers = [(path, node) for path, node in _nodes(spec) if _is_integer(node)]
    assert len(integers) > 15
    for path, node in integers:
        rules = [rule["rule"] for rule in node.get("x-kubernetes-validations", [])]
        for beyond in (2**53 + 1, 2**63 - 1, -(2**53) - 1):
            within = node.get("minimum", beyond) <= beyond <= node.get("maximum", beyond)
            assert not (within and all(is_true(rule, beyond) for rule in rules)), path


def test_rules_on_quantities_are_cheap_enough_for_the_oldest_kubernetes() -> None:
    """Before 1.34 a number or text counts as 3 MiB of text; a rule may read 31 of them.

    That rules on their parents are cheap enough only that API server itself can tell.
    """
    reading = re.compile(r"\b(?:isQuantity|quantity|string)\((?!')|\btype\(\w+\) ==")
    found = 0

    def look(node: Json, times: int, path: str) -> None:
        nonlocal found
        if "x-kubernetes-int-or-string" in node:
            found += 1
            for rule in node.get("x-kubernetes-validations", []):
                assert times * len(reading.findall(rule["rule"])) <= 31, path
        for name, child in node.get("properties", {}).items():
            look(child, times, f"{path}.{name}")
        if "items" in node:
            look(node["items"], times * node["maxItems"], f"{path}[]")
        if "additionalProperties" in node:
            look(node["additionalProperties"], times * node["maxProperties"], f"{path}{{}}")

    look(_schema(CRDS[0]), 1, "")
    assert found >= 5


def _is_integer(node: Json) -> bool:
    """Also a number that may be a word, but not a quantity."""
    word = "x-kubernetes-int-or-string" in node and node["maxLength"] != MAX_QUANTITY
    return node.get("type") == "integer" or word


def test_columns_tell_what_people_look_for() -> None:
    columns = CRDS[0]["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"].upper() for column in columns if "priority" not in column]
    expected = "PHASE REASON READY PROGRESS EPSILON GPU ETA RESTARTS AGE"
    assert shown == expected.split()
    paths = {path for path, _ in _nodes(_schema(CRDS[0]))}
    for column in columns:
        assert column["jsonPath"] in paths | {".metadata.creationTimestamp"}


def test_scale_reads_fields_that_exist() -> None:
    paths = {path for path, _ in _nodes(_schema(CRDS[0]))}
    scale = CRDS[0]["spec"]["versions"][0]["subresources"]["scale"]
    assert set(scale.values()) <= paths


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.a == self.b", {"a": {"x": [1, None, "s"]}, "b": {"x": [1, None, "s"]}}),
        ("self.a != self.b", {"a": {"x": True}, "b": {"x": 1}}),
        ("self.a != self.b", {"a": {"x": 1}, "b": {"x": "1"}}),
        ("self.delta < 1.0 / double(self.n)", {"delta": 1e-5, "n": 1437}),
        ("true || self.missing == 1", {}),
        ("self.text.size() == 2", {"text": "äö"}),
        ("self.l.map(s, s.draws).sum() == 3", {"l": [{"draws": 1}, {"draws": 2}]}),
        ("self.l.isSorted() && !self.m.isSorted()", {"l": [1, 1, 2], "m": [2, 1]}),
        ("quantity('1024Mi').compareTo(quantity('1Gi')) == 0", {}),
    ],
)
def test_cel_means_what_it_means_in_the_api_server(expression: str, value: Json) -> None:
    assert is_true(expression, value)
