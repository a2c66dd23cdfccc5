"""All that is wrong with a manifest is shown at once, with what was likely meant."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_api.schema.mistakes import mistakes
from dtjob_api.schema.validation import validate
from tests.support.rules.manifest_cases import BAD_CASES, GOOD_CASES, NOT_CHECKED, Case

(MINIMAL,) = [case.manifest for case in GOOD_CASES if case.name == "minimal"]


def manifest(**parts: dict[str, Any]) -> dict[str, Any]:
    """The least manifest, with other fields in parts of its spec."""
    made = copy.deepcopy(MINIMAL)
    for part, fields in parts.items():
        made["spec"][part] = {**made["spec"].get(part, {}), **fields}
    return made


def renamed(part: str, **names: str) -> dict[str, Any]:
    made = copy.deepcopy(MINIMAL)
    fields = made["spec"][part]
    made["spec"][part] = {names.get(name, name): value for name, value in fields.items()}
    return made


@pytest.mark.parametrize("case", GOOD_CASES, ids=lambda case: case.name)
def test_what_is_good_has_none(case: Case) -> None:
    assert mistakes(case.manifest) == []


@pytest.mark.parametrize("case", BAD_CASES, ids=lambda case: case.name)
def test_no_word_of_the_api_server_is_lost(case: Case) -> None:
    before = copy.deepcopy(case.manifest)
    found = mistakes(case.manifest)
    for message in case.expected:
        assert any(mistake.startswith(message) for mistake in found)
    assert not any(NOT_CHECKED in mistake for mistake in found)
    assert case.manifest == before


def test_a_field_that_is_unknown_hides_nothing() -> None:
    made = renamed("training", batchSize="batch_size", optimizer="Optimiser")
    made["spec"]["training"]["epochs"] = "3"
    made["spec"]["training"]["batch_size"] = 0
    made["spec"]["privacy"]["epsilon"] = -1
    assert [str(error) for error in validate(made)] == [
        'unknown field "spec.training.Optimiser"',
        'unknown field "spec.training.batch_size"',
    ]
    found = mistakes(made)
    assert 'unknown field "spec.training.Optimiser"; did you mean optimizer?' in found
    assert 'unknown field "spec.training.batch_size"; did you mean batchSize?' in found
    assert any(it.startswith("spec.training.epochs:") and it.endswith("epochs: 3") for it in found)
    assert any(it.startswith("spec.training.batchSize: Invalid value: 0") for it in found)
    assert any(it.startswith("spec.privacy.epsilon: Invalid value: -1") for it in found)
    assert not any("Required" in it or "not checked" in it for it in found)


@pytest.mark.parametrize(
    ("part", "field", "value", "remedy"),
    [
        ("privacy", "epsilon", "8", "; write epsilon: 8"),
        ("privacy", "epsilon", "0.5", "; write epsilon: 0.5"),
        ("privacy", "epsilon", "eight", "; give a number, without quotes"),
        ("privacy", "epsilon", "nan", "; give a number, without quotes"),
        ("privacy", "datasetSize", 2e3, "; write datasetSize: 2000"),
        ("privacy", "datasetSize", 2000.5, "; give a whole number"),
        ("privacy", "datasetSize", True, "; give a whole number, without quotes"),
        ("privacy", "mode", "dpsgd", "; did you mean DPSGD?"),
        ("training", "entrypoint", 5, '; write entrypoint: "5"'),
        ("training", "optimizer", "adam", "; give it fields of its own, as in {name: value}"),
    ],
)
def test_a_wrong_type_has_its_remedy(part: str, field: str, value: Any, remedy: str) -> None:
    made = manifest(**{part: {field: value}})
    (words,) = [str(it) for it in validate(made) if it.field == f"spec.{part}.{field}"]
    assert words + remedy in mistakes(made)


def test_rules_of_other_fields_are_checked_beside_a_wrong_type() -> None:
    made = manifest(privacy={"epsilon": "eight", "maxGradNorm": -1}, training={"entrypoint": "x.y"})
    found = mistakes(made)
    assert any(it.startswith("spec.privacy.maxGradNorm: Invalid value: -1") for it in found)
    assert any(it.startswith("spec.training.entrypoint: Invalid value") for it in found)
    assert found[-1].startswith("Rules that need these fields are not checked")


def test_a_field_twice_is_not_taken_for_the_other() -> None:
    made = manifest(training={"batchsize": 7})
    assert mistakes(made) == ['unknown field "spec.training.batchsize"; did you mean batchSize?']


def test_a_field_like_no_other_is_shown_alone() -> None:
    made = manifest(training={"xyzzy": 7})
    assert mistakes(made) == ['unknown field "spec.training.xyzzy"']
