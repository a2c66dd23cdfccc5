"""Everything that people get wrong is refused in the API server's words, and nothing else is."""

from __future__ import annotations

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.validation import ErrorKind, apply_defaults, validate
from tests.support.rules.manifest_cases import BAD_CASES, GOOD_CASES, NOT_CHECKED, Case, mistakes


@pytest.mark.parametrize("case", BAD_CASES, ids=lambda case: case.name)
def test_bad_manifest_is_refused_with_the_message_it_states(case: Case) -> None:
    assert case.expected, "a bad manifest states its messages in `# expect:` comments"
    assert mistakes([str(error) for error in validate(case.manifest)]) == case.expected


@pytest.mark.parametrize("case", GOOD_CASES, ids=lambda case: case.name)
def test_good_manifest_is_admitted_and_decoded(case: Case) -> None:
    assert validate(case.manifest) == []
    if "name" in case.manifest["metadata"]:
        stored = apply_defaults(case.manifest)
        job = DistributedTrainingJob.from_dict(stored)
        assert job == DistributedTrainingJob.from_dict(job.to_dict())
        assert validate(job.to_dict()) == []


def test_schema_and_models_have_the_same_defaults() -> None:
    """What the operator decodes from the API server is what the CLI decodes from a file."""
    (minimal,) = [case for case in GOOD_CASES if case.name == "minimal"]
    from_file = DistributedTrainingJob.from_dict(minimal.manifest)
    from_server = DistributedTrainingJob.from_dict(apply_defaults(minimal.manifest))
    assert from_file == from_server


def test_a_blocking_mistake_says_that_more_may_follow() -> None:
    (case,) = [case for case in BAD_CASES if case.name == "enum-hides-rules"]
    assert NOT_CHECKED in str(validate(case.manifest)[-1])


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("dtjob.dev/v1", "DistributedTrainingJob"),
        ("dtjob.dev/v1alpha1", "Deployment"),
        (None, None),
    ],
)
def test_a_foreign_kind_is_named(api_version: str | None, kind: str | None) -> None:
    (error,) = validate({"apiVersion": api_version, "kind": kind})
    assert error.kind is ErrorKind.UNSUPPORTED
    assert f"{api_version} {kind}" in str(error)


def test_a_status_in_a_new_manifest_is_ignored_as_the_api_server_does() -> None:
    (minimal,) = [case for case in GOOD_CASES if case.name == "minimal"]
    assert validate(minimal.manifest | {"status": {"phase": "NoSuchPhase"}}) == []
