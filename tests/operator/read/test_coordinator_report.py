"""The coordinator's report: what is malformed or another's is absent, and nothing raises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dtjob_api.job.status import JobStatus
from dtjob_operator.read.coordinator_report import read
from tests.support.builders import UID
from tests.support.worlds.world import World, answer

HUGE = 10**400


@pytest.mark.parametrize("told", [{"jobUID": "another"}, {"jobUID": None}, {"attempt": -1}])
def test_a_report_that_is_not_the_jobs_own_is_none(told: dict[str, Any]) -> None:
    assert read(answer(7), UID) is not None
    assert read(answer(7) | told, UID) is None


def test_a_report_must_say_whose_it_is() -> None:
    told = answer(7)
    del told["jobUID"]
    assert read(told, UID) is None


@pytest.mark.parametrize(
    ("field", "value", "absent"),
    [
        ("samplesPerSecond", HUGE, "samples_per_second"),
        ("samplesPerSecond", 1e-300, "samples_per_second"),
        ("samplesPerSecond", 5e-324, "samples_per_second"),
        ("samplesPerSecond", -1, "samples_per_second"),
        ("evaluation", {"accuracy": HUGE}, "evaluation"),
        ("heartbeatTime", "0001-01-01T00:00:00+23:00", "heartbeat"),
        ("estimatedCompletionTime", "9999-12-31T23:59:59-23:00", "estimated_completion"),
        ("gpu", {"count": HUGE}, "gpu"),
        ("gpu", {"count": 1, "memoryUsedBytes": HUGE, "memoryTotalBytes": 1}, "gpu"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_hostile_figure_is_absent(field: str, value: Any, absent: str) -> None:
    told = json.loads(json.dumps(answer(7, **{field: value})))
    found = read(told, UID)
    assert found is not None
    assert not getattr(found, absent)
    world = World.of()
    world.start()
    world.see(report=found)
    world.later(60)
    world.settle()
    assert JobStatus.model_validate(world.status).to_dict() == world.status


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        ("dry run on synthetic data", "dry run on synthetic data"),
        ("epsilon 0.0100 spent", ""),
        ("dry run\x1b[2K", ""),
        (7, ""),
    ],
)
def test_a_stage_has_no_room_for_a_figure(stage: object, shown: str) -> None:
    found = read(answer(7, stage=stage), UID)
    assert found is not None
    assert found.stage == shown


def test_half_a_character_is_no_text_that_can_be_told() -> None:
    found = read(answer(7, message="\ud800 why"), UID)
    assert found is not None
    assert found.message == "? why"
