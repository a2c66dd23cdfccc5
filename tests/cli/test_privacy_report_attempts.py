"""A report says how many of a job's attempts were refused; those that train are the others."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dtjob_api.ledger.privacy_ledger import AttemptRecord
from dtjob_api.reasons import Reason
from dtjob_cli import privacy_report, privacy_report_text
from tests.support.builders import new_ledger, privacy_plan, public_plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOT_ASKED: Any = None


@pytest.mark.parametrize(
    ("first", "reasons", "said"),
    [
        (1, [Reason.STOPPED], "in one attempt"),
        (1, [Reason.STOPPED, None], "in 2 attempts"),
        (1, [Reason.ENTRYPOINT_INVALID, None], "in 2 attempts (1 refused)"),
        (
            1,
            [Reason.STOPPED, Reason.CHECKPOINT_MISMATCH, Reason.TASK_FAILED, Reason.RANK_FAILED],
            "in 4 attempts (2 refused)",
        ),
        (
            31,
            [Reason.TASK_FAILED, Reason.STOPPED],
            "in 32 attempts (at least 1 refused)",
        ),
    ],
)
def test_refused_attempts_are_told_apart(
    first: int, reasons: list[Reason | None], said: str
) -> None:
    records = [
        AttemptRecord(attempt=first + at, start=NOW, reason=reason)
        for at, reason in enumerate(reasons)
    ]
    last = first + len(reasons) - 1
    made = new_ledger(public_plan(), workers=2, attempt=last, attempts=records)

    rows = dict(privacy_report_text.rows(privacy_report.build(made, NOT_ASKED, None)))

    assert rows["steps"] == f"0 of 336 {said}"


@pytest.mark.rule(23)
def test_figures_are_of_all_reserved_draws_whatever_was_made() -> None:
    asked: list[Any] = []
    accountant: Any = SimpleNamespace(submit_figures=lambda *given: asked.append(given))
    privacy_report.prepare(privacy_plan(steps=336, replay_reserve_steps=30), accountant)
    (((sigma, rate, draws),), delta) = asked[0]
    assert (sigma, draws, delta) == (2.2035, 366, 1e-5)
    assert rate >= 256 / 1437
