"""Whether a ledger tells all that was spent, as operator and CLI ask it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    Lease,
    LedgerStatus,
    Outcome,
    OutcomeState,
    VolumeRecord,
)
from dtjob_api.ledger.proven import may_lack_draws, proven_draws
from dtjob_api.reasons import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOME = Outcome(state=OutcomeState.FAILED, reason=Reason.TASK_INVALID, time=NOW)


def attempts(*reasons: Reason | None) -> list[AttemptRecord]:
    return [AttemptRecord(attempt=n, start=NOW, reason=why) for n, why in enumerate(reasons, 1)]


def lease(attempt: int) -> Lease:
    return Lease(attempt=attempt, from_draw=0, to_draw=20, from_step=0)


LOST = attempts(None, Reason.PRIVACY_STATE_LOST, None)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"charged": 20, "attempt": 1, "lease": lease(1)}, None),
        # A worker has found more on the volume.
        ({"volume": VolumeRecord(attempt=1, charged=300)}, "found 300 draws charged"),
        ({"volume": VolumeRecord(attempt=1, charged=300), "outcome": OUTCOME}, "found 300 draws"),
        ({"volume": VolumeRecord(attempt=4, charged=0)}, "in attempt 4 there"),
        ({"volume": VolumeRecord(attempt=1, charged=20, leased=2), "lease": lease(1)}, "behind"),
        ({"volume": VolumeRecord(attempt=3, charged=20, leased=3), "restored": 3}, None),
        # It has said so only in how its attempt ended.
        ({"attempts": LOST}, "attempt 2 was refused as PrivacyStateLost"),
        ({"attempts": LOST, "lease": lease(1)}, "attempt 2 was refused"),
        ({"attempts": LOST, "lease": lease(2)}, "attempt 2 was refused"),
        ({"attempts": LOST, "lease": lease(3)}, None),
        ({"attempts": LOST, "restored": 1}, "attempt 2 was refused"),
        ({"attempts": LOST, "restored": 2}, None),
        ({"attempts": LOST, "outcome": OUTCOME}, None),
        ({"attempts": attempts(Reason.CHECKPOINT_LOST, Reason.STORAGE_UNUSABLE)}, None),
    ],
)
def test_a_ledger_says_itself_whether_it_may_lack_draws(
    fields: dict[str, Any], told: str | None
) -> None:
    status = LedgerStatus(**{"charged": 20, "attempt": 3} | fields)
    found = may_lack_draws(status)
    assert (found is None) == (told is None)
    assert (told or "") in (found or "")


@pytest.mark.parametrize(
    ("status", "draws"),
    [
        ({}, 0),
        ({"charged": 20}, 20),
        ({"charged": 20, "volume": {"charged": 300}}, 300),
        ({"charged": 310, "volume": {"charged": 300}}, 310),
    ],
)
def test_as_many_draws_were_spent_as_ledger_or_volume_says(
    status: dict[str, Any], draws: int
) -> None:
    assert proven_draws(status) == draws
