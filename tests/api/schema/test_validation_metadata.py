"""What an object's metadata can't be is told by field and remedy, before anything reads it.

Not in bad/: kubectl and the API server's decoder refuse these before any schema, in words that
name a Go struct and no remedy.
"""

from __future__ import annotations

from typing import Any

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.manifest import load, loads
from dtjob_api.schema.validation import apply_defaults, validate
from tests.support.rules.manifest_cases import EXAMPLES

DIGITS = load(EXAMPLES / "digits.yaml")
QUOTES = "must be a string; write it in quotes"


def with_metadata(text: str) -> dict[str, Any]:
    return DIGITS | loads(f"metadata: {text}")


def errors_of(manifest: dict[str, Any]) -> list[str]:
    return [str(error) for error in validate(manifest)][:-1]  # the last: rules were not checked


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ("foo", 'metadata: Invalid value: "foo": must be a mapping, such as {name: my-job}'),
        ("[a]", 'metadata: Invalid value: ["a"]: must be a mapping, such as {name: my-job}'),
        ("[{b: 1}]", "metadata: Invalid value:"),
        ("0", "metadata: Invalid value: 0: must be a mapping"),
        ("false", "metadata: Invalid value: false: must be a mapping"),
        ("{name: 12}", f"metadata.name: Invalid value: 12: {QUOTES}"),
        ("{name: 0, generateName: a-}", f"metadata.name: Invalid value: 0: {QUOTES}"),
        ("{name: [a]}", 'metadata.name: Invalid value: ["a"]: must be a string'),
        ("{generateName: 1}", f"metadata.generateName: Invalid value: 1: {QUOTES}"),
        ("{name: a, namespace: 5}", f"metadata.namespace: Invalid value: 5: {QUOTES}"),
        ("{name: a, uid: 5}", f"metadata.uid: Invalid value: 5: {QUOTES}"),
        ("{name: a, labels: [b]}", 'metadata.labels: Invalid value: ["b"]: must be a mapping'),
        ("{name: a, labels: 0}", "metadata.labels: Invalid value: 0: must be a mapping"),
        (
            "{name: a, labels: {version: 1.0}}",
            f"metadata.labels.version: Invalid value: 1.0: {QUOTES}",
        ),
        (
            "{name: a, labels: {b: null}}",
            "metadata.labels.b: Invalid value: null: must be a string",
        ),
        ("{name: a, annotations: {b: true}}", "metadata.annotations.b: Invalid value: true: "),
        ("{name: a, annotations: {b: {c: 1}}}", 'metadata.annotations.b: Invalid value: {"c": 1}'),
        ("{name: a, generation: x}", 'metadata.generation: Invalid value: "x"'),
        ("{name: a, creationTimestamp: soon}", 'metadata.creationTimestamp: Invalid value: "soon"'),
        ("{name: a, creationTimestamp: 2026-13-02T03:04:05Z}", "metadata.creationTimestamp: "),
        ("{name: a, creationTimestamp: 20260102T030405Z}", "metadata.creationTimestamp: "),
        ("{name: a, deletionTimestamp: 5}", "metadata.deletionTimestamp: Invalid value: 5"),
    ],
)
def test_a_wrong_type_is_named(metadata: str, error: str) -> None:
    (found,) = errors_of(with_metadata(metadata))
    assert found.startswith(error)


def test_other_mistakes_are_told_with_it() -> None:
    manifest = with_metadata("{name: a, labels: {b: 1, c: 2}}")
    manifest = manifest | {"spec": manifest["spec"] | {"image": 5}}
    assert [error.split(":")[0] for error in errors_of(manifest)] == [
        "metadata.labels.b",
        "metadata.labels.c",
        "spec.image",
    ]
    unknown = with_metadata("{name: 1, nmae: a}")
    assert [error.field for error in validate(unknown)] == ["metadata.name", "metadata.nmae"]


@pytest.mark.parametrize(
    "metadata",
    [
        "{name: a, labels: null, annotations: null, namespace: null}",
        "{name: a, generateName: null, creationTimestamp: null}",
        '{name: a, labels: {version: "1.0"}, annotations: {b: ""}}',
        "{name: a, creationTimestamp: 2026-01-02T03:04:05Z, uid: x, generation: 2}",
    ],
)
def test_what_is_admitted_can_be_decoded(metadata: str) -> None:
    manifest = with_metadata(metadata)
    assert validate(manifest) == []
    assert DistributedTrainingJob.from_dict(apply_defaults(manifest)).metadata.name == "a"


def test_a_null_name_is_generated() -> None:
    assert validate(with_metadata("{name: null, generateName: a-}")) == []
