"""A report is served as it was, read back whole, and believed field by field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from tests.support.checkout import ROOT

STORED = (ROOT / "tests/api/wire/reports.jsonl").read_text().splitlines()
TEXTS = {"stage", "reason", "message"}
TRAINING: dict[str, Any] = json.loads(STORED[0])


def read(raw: object) -> WorkerReport:
    report = WorkerReport.read(raw)
    assert report is not None
    return report


@pytest.mark.parametrize("stored", STORED, ids=["training", "waiting"])
def test_what_was_served_before_is_served_again_to_the_byte(stored: str) -> None:
    report = read(json.loads(stored))
    assert json.dumps(report.to_json(), separators=(",", ":")) == stored


def test_each_figure_is_read() -> None:
    report = read(TRAINING)
    assert (report.state, report.restarts, report.total_steps) == (WorkerState.RUNNING, 1, 336)
    assert (report.charged, report.reserved_draws, report.epsilon_spent) == (130, 366, "4.3112")
    assert report.evaluation == {"step": 100, "accuracy": 0.9125, "loss": 1}
    assert report.heartbeat == datetime(2026, 3, 1, 12, 0, 9, tzinfo=UTC)
    assert report.checkpoint is not None
    assert report.checkpoint.step == 110
    assert report.gpu is not None
    assert report.gpu.power_watts == 812


@pytest.mark.parametrize("raw", [None, [], "garbled", {}, {"jobUID": "a"}, {"attempt": 1}])
def test_what_does_not_say_whose_it_is_is_none(raw: object) -> None:
    assert WorkerReport.read(raw) is None


@pytest.mark.parametrize("malformed", [["x"], {"x": "y"}, "½", -1, 10**400, True, 5e-324])
@pytest.mark.parametrize("name", sorted(set(TRAINING) - {"jobUID", "attempt", *TEXTS}))
def test_a_malformed_field_is_absent_and_the_others_stay(name: str, malformed: Any) -> None:
    report = read(TRAINING | {name: malformed})
    without = read({k: v for k, v in TRAINING.items() if k != name})
    assert report == without


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_text_is_of_a_length_and_can_be_told(name: str) -> None:
    told = read(TRAINING | {name: "\ud800" + 2000 * "x"}).to_json()[name]
    assert told == "?" + 1023 * "x"
    assert not read(TRAINING | {name: 7}).to_json()[name]


@pytest.mark.parametrize("epsilon", ["inf", "NaN", "-1", "1e-9", "4.31 of 8", ""])
def test_an_epsilon_is_a_decimal(epsilon: str) -> None:
    assert read(TRAINING | {"epsilonSpent": epsilon}).epsilon_spent is None


def test_a_state_of_another_version_is_none() -> None:
    assert read(TRAINING | {"state": "Dreaming"}).state is None
