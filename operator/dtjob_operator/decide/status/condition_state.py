"""What one condition says."""

from __future__ import annotations

from dataclasses import dataclass

from dtjob_api.reasons import ConditionType, Reason


@dataclass(frozen=True)
class ConditionState:
    """What a condition says now: True, False or (None) Unknown."""

    type: ConditionType
    status: bool | None
    reason: Reason
    message: str
