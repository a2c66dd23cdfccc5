"""The digest by which a job that has been done is known again, also by later versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtjob_api.content import FORMAT, content
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.manifest import load
from tests.support.checkout import ROOT
from tests.support.rules.manifest_cases import GOOD, load_case
from tests.support.rules.transitions import REMOVED, edited

EVERYTHING = load_case(GOOD / "everything.yaml").manifest


def digest(manifest: dict[str, Any]) -> str:
    found = content(DistributedTrainingJob.from_dict(manifest).spec)
    assert found is not None
    assert found.format == FORMAT
    return found.sha256


KNOWN = sorted((ROOT / "tests" / "api" / "content" / f"format-{FORMAT}").glob("*.yaml"))


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.name)
def test_what_older_versions_have_written_stays(path: Path) -> None:
    """A job of theirs would be trained once more otherwise: these files never change.

    What is hashed otherwise is another format, with a folder of its own beside this one.
    """
    first, _, _ = path.read_text().partition("\n")
    assert first == f"# sha256: {digest(load(path))}"


def test_there_are_some() -> None:
    assert len(KNOWN) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.image": "example.test/another:1"},
        {"spec.workers.replicas": 7},
        {"spec.rerun": 3},
        {"spec.suspend": True},
        {"spec.autoscaling": REMOVED},
        {"spec.runPolicy.maxRestarts": 3},
        {"spec.checkpoint.keep": 4},
        {"spec.storage.checkpoints.size": "9Gi"},
        {"metadata.labels": {"team": "another"}},
        # A default that is spelled out, and a number as YAML reads it.
        {"spec.privacy.mode": "DPSGD"},
        {"spec.privacy.maxGradNorm": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_it_is_the_same_work(changes: dict[str, Any]) -> None:
    assert digest(edited(EVERYTHING, changes)) == digest(EVERYTHING)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.training.steps": 337},
        {"spec.training.args.hidden": 64},
        {"spec.training.optimizer.learningRate": 0.5},
        {"spec.privacy.epsilon": 7},
        {"spec.privacy.datasetSize": 200_000},
        {"spec.storage.data.claimName": "another"},
        {"spec.storage.data": REMOVED},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_it_is_other_work(changes: dict[str, Any]) -> None:
    assert digest(edited(EVERYTHING, changes)) != digest(EVERYTHING)
