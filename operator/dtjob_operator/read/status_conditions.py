"""The conditions of a stored status."""

from __future__ import annotations

from dtjob_api.reasons import ConditionType
from dtjob_operator.terms.kinds import Json


def condition(status: Json, kind: ConditionType) -> Json | None:
    """One condition of a status."""
    return next((c for c in status.get("conditions") or [] if c["type"] == kind), None)


def is_true(status: Json, kind: ConditionType) -> bool:
    """Whether a condition of a status is True."""
    found = condition(status, kind)
    return found is not None and found["status"] == "True"


def terminal(status: Json) -> Json | None:
    """The condition that makes a status final; None where it is not."""
    found = (condition(status, kind) for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED))
    return next((each for each in found if each is not None and each["status"] == "True"), None)


def is_terminal(status: Json) -> bool:
    """Whether a status is final."""
    return terminal(status) is not None
