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


def reason_of_end(status: Json) -> str | None:
    """The reason of the terminal condition; None where there is none."""
    for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED):
        if is_true(status, kind):
            found = condition(status, kind)
            return found["reason"] if found is not None else None
    return None


def is_terminal(status: Json) -> bool:
    """Whether a status is final."""
    return is_true(status, ConditionType.SUCCEEDED) or is_true(status, ConditionType.FAILED)
