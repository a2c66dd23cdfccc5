"""A report says how many of a job's attempts were refused; those that train are the others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dtjob_api.derive import ledger_spec
from dtjob_api.ledger import AttemptRecord, LedgerStatus, PrivacyLedger
from dtjob_api.model import ObjectMeta
from dtjob_api.privacy import PrivacyMode
from dtjob_api.reasons import Reason
from dtjob_cli import manifests, report, report_text
from tests.support.checkout import DIGITS
from tests.support.commands.stored_runs import PLAN, UID

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOT_ASKED: Any = None


@pytest.mark.parametrize(
    ("first", "reasons", "said"),
    [
        (1, [Reason.STOPPED], "in one attempt"),
        (1, [Reason.STOPPED, None], "in 2 attempts"),
        (1, [Reason.ENTRYPOINT_INVALID, None], "in 2 attempts, of which 1 ended refused"),
        (
            1,
            [Reason.STOPPED, Reason.CHECKPOINT_MISMATCH, Reason.TASK_FAILED, Reason.RANK_FAILED],
            "in 4 attempts, of which 2 ended refused",
        ),
        (
            31,
            [Reason.TASK_FAILED, Reason.STOPPED],
            "in 32 attempts, of which at least 1 ended refused",
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
    status = LedgerStatus(attempt=first + len(reasons) - 1, attempts=records)
    plan = PLAN.model_copy(update={"mode": PrivacyMode.DISABLED})
    job = manifests.job(manifests.read(DIGITS), UID)
    spec = ledger_spec(job, plan)
    ledger = PrivacyLedger(metadata=ObjectMeta(name="digits"), spec=spec, status=status)

    rows = dict(report_text.rows(report.build(ledger, NOT_ASKED, None)))

    assert rows["steps"] == f"0 of 336 {said}"
