"""One run of a job after the other: what is kept of the last, and how the next begins."""

from __future__ import annotations

from dtjob_api.job.status import MOST_PREVIOUS_RUNS, PreviousRun
from dtjob_operator.decide.child_kinds import CHILD_KINDS
from dtjob_operator.decide.situation import Situation
from dtjob_operator.read.status_conditions import terminal
from dtjob_operator.read.stored_job import asked_run
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Event
from dtjob_operator.terms.kinds import Json

RERUN = "Rerun"


def next_run(situation: Situation) -> Json | None:
    """The status with which another run begins; None where none is asked for, or not yet.

    It begins once nothing is left of the last, whose names it does not share. Its conditions are
    its own: a terminal one is final for a run.
    """
    observed, stored = situation.observed, situation.stored
    asked = asked_run(observed.job)
    if not situation.finished or asked <= situation.job.spec.rerun or observed.pods:
        return None
    if any(
        _is_left(situation, child.stored(observed)) for child in CHILD_KINDS if child.is_of_pods
    ):
        return None
    earlier = [*stored.get("previousRuns", []), _summary(situation)]
    return {
        "phase": "Pending",
        "rerun": asked,
        "observedGeneration": observed.job["metadata"].get("generation"),
        "previousRuns": earlier[-MOST_PREVIOUS_RUNS:],
    }


def announced(begun: Json) -> Event:
    """The Event of a run that begins."""
    last = begun["previousRuns"][-1]
    how = f"{last['phase']}, {last['reason']}" if "reason" in last else last["phase"]
    message = f"run {begun['rerun']} begins, and spends anew; run {last['rerun']} has ended: {how}"
    return Event("Normal", RERUN, message)


def _is_left(situation: Situation, stored: Json | None) -> bool:
    return stored is not None and names.is_ours(stored, situation.job)


def _summary(situation: Situation) -> Json:
    stored, end = situation.stored, terminal(situation.stored)
    privacy: Json = stored.get("privacy", {})
    return PreviousRun(
        rerun=situation.job.spec.rerun,
        ledger=stored.get("ledger"),
        phase=stored["phase"],
        reason=end["reason"] if end is not None else None,
        steps=stored.get("progress", {}).get("step"),
        draws_charged=privacy.get("drawsCharged"),
        epsilon_spent=privacy.get("epsilonSpent"),
        start_time=stored.get("startTime"),
        completion_time=stored.get("completionTime"),
    ).to_dict()
