"""What a status says while the noise of its job is calibrated."""

from __future__ import annotations

import re

from dtjob_api.reasons import Reason
from dtjob_operator.terms.kinds import Json

# It moves with every other job's plan, so that it is as old as its status, and says so.
_PLACE = re.compile(r"; [0-9]+ other plans?, when this was written, (?:was|were) to be made first")


def calibrating(trouble: str | None, plans_before: int) -> str:
    """Why there is no plan yet.

    Parameters
    ----------
    trouble
        Why the last calibration came to no end, if it did not.
    plans_before
        Calibrations of other jobs that are done first.
    """
    if trouble:
        return (
            "the noise multiplier for epsilon and delta could not be calibrated and is tried "
            f"again: {trouble.rstrip('.')}. Look at the operator's log and its pod's memory"
        )
    return f"the noise multiplier for epsilon and delta is being calibrated{_place(plans_before)}"


def _place(plans_before: int) -> str:
    if plans_before == 0:
        return ""
    others = "other plan" if plans_before == 1 else "other plans"
    verb = "was" if plans_before == 1 else "were"
    return f"; {plans_before} {others}, when this was written, {verb} to be made first"


def without_place(conditions: list[Json]) -> list[Json]:
    """Conditions without the place in the queue, whose moves alone are worth no write."""
    return [
        each | {"message": _PLACE.sub("", each.get("message", ""))}
        if each["reason"] == Reason.PLANNING
        else each
        for each in conditions
    ]
