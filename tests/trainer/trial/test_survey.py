"""What the owner of a data set sees of its records."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from dtjob_trainer.task import ArraySpec
from dtjob_trainer.trial import ENDS_THE_JOB
from dtjob_trainer.trial.survey import Survey, tried
from tests.support.mechanism.bad_records import BAD, Broken
from tests.support.mechanism.models import Records, make_task, rows

SPEC = make_task().example_spec


def surveyed(records: Any, ids: Any = None, spec: Any = SPEC) -> dict[str, Any]:
    survey = Survey()
    ids = range(len(records)) if ids is None else ids
    assert list(tried(records, spec, ids, survey)) == list(ids)
    found: dict[str, Any] = json.loads(json.dumps(survey.as_object(spec)))
    return found


def test_faults_are_counted_by_field_and_reason_with_the_first_that_have_them() -> None:
    found = surveyed(Broken())
    assert (found["tried"], found["bad"]) == (2 + len(BAD), len(BAD))
    faults = {(fault["field"], fault["reason"]): fault for fault in found["faults"]}
    assert faults["x", "not finite"]["first"] == [2, 3]
    assert faults["x", "out of range"]["count"] == 2
    assert faults["y", "no such field"]["example"] == "it has 'x'"
    assert faults[None, "can't be read: OSError"]["example"].startswith("OSError: torn file at /")
    assert sum(fault["count"] for fault in found["faults"]) == found["bad"]


def test_only_the_first_are_listed() -> None:
    (fault,) = surveyed([{"x": 0}] * 30)["faults"]
    assert (fault["count"], fault["first"]) == (30, list(range(10)))


@pytest.mark.parametrize("record", [(1.0, 0), [1.0, 0], np.ones(3), "JANE", None])
def test_records_without_fields_are_said_to_be_none(record: Any) -> None:
    (fault,) = surveyed([record] * 3)["faults"]
    assert (fault["field"], fault["reason"], fault["count"]) == (None, "no fields", 3)
    kind = type(record).__name__
    assert fault["example"] == f"it is a {kind}; [i] has to give {{'x': ..., 'y': ...}}"


def test_ranges_are_of_all_finite_numbers_whatever_is_wrong_with_them() -> None:
    records = [{"v": [0.5, np.nan]}, {"v": [-3, 99]}, {"v": [7.0]}, {"v": ["a"]}, {}, None]
    spec = {"v": ArraySpec((2,), "float32", 0.0, 1.0)}
    expected = {"v": {"least": -3, "greatest": 99, "low": 0.0, "high": 1.0}}
    assert surveyed(records, spec=spec)["ranges"] == expected


class Panic(BaseException):
    """As of a library in Rust."""


class Panicking(Records):
    def __getitem__(self, index: int, /) -> Any:
        if index == 3:
            raise Panic("index out of bounds")
        return super().__getitem__(index)


def test_what_ends_a_job_does_not_end_a_survey() -> None:
    found = surveyed(Panicking(rows(8)))
    assert found["tried"] == 8
    (fault,) = found["faults"]
    assert (fault["reason"], fault["first"]) == (ENDS_THE_JOB, [3])
    assert fault["example"].startswith("Panic: index out of bounds at ")


class Shaken(Records):
    """Leaves its range by the random numbers of some reads."""

    def __getitem__(self, index: int, /) -> Any:
        record = super().__getitem__(index)
        return {**record, "x": record["x"] + (torch.rand(()).item() < 0.5) * 9.0}


def test_a_second_survey_finds_the_same() -> None:
    first = surveyed(Shaken(rows(40)))
    assert 0 < first["bad"] < 40
    assert surveyed(Shaken(rows(40))) == first
