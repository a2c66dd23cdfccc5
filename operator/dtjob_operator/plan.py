"""What to do about one job: a pure function from what is seen to what is wanted."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from dtjob_api.job import DistributedTrainingJob
from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_operator import admission, children
from dtjob_operator.announcements import announcements
from dtjob_operator.conditions import Claim, with_claim
from dtjob_operator.kinds import Json
from dtjob_operator.observed import Decision, Observed
from dtjob_operator.pacing import has_first_figures, seconds_until_write
from dtjob_operator.settings import Settings
from dtjob_operator.situation import Situation, assess
from dtjob_operator.status import is_terminal, status

_FIRST_FIGURES_SECONDS = 1.0


def plan(observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Decide what to apply, what to say in the job's status, and when to look again.

    Without I/O, clock or randomness: equal arguments give equal decisions. Applied, a decision
    leads to one that applies nothing and leaves the status as it is.
    """
    stored: Json = observed.job.get("status") or {}
    if "deletionTimestamp" in observed.job["metadata"]:
        return Decision(status=stored)
    try:
        job = DistributedTrainingJob.from_dict({**observed.job, "status": None})
    except ValidationError as error:
        return _unreadable(observed, stored, error, now)
    situation = assess(observed, job, now, settings)
    refusal = None
    undecided = not (situation.ledger or situation.halted or situation.blocked)
    if undecided and not situation.finished:
        refusal = admission.refusal(observed)
    new = status(observed, situation, refusal, now)
    wait = seconds_until_write(stored, new, observed.status_written, now, settings)
    written = new if wait == 0 else stored
    latched = situation.ledger.spec.run.workers if situation.ledger else None
    return Decision(
        applies=() if refusal else children.applies(observed, situation),
        deletes=children.deletes(observed, situation),
        status=written,
        events=announcements(stored, written, job, latched) if wait == 0 else (),
        wake_after=_wake_after(situation, written, wait, settings),
    )


def _wake_after(
    situation: Situation, written: Json, wait: float | None, settings: Settings
) -> float | None:
    """Seconds to the next look: soon where something is awaited that no watch tells of."""
    if is_terminal(written):
        # The status is told first; the pods are released when it is stored.
        return wait if situation.finished else 0.0
    if situation.ledger is None and not (situation.halted or situation.blocked):
        return None
    if situation.halted or situation.blocked or situation.finding or situation.refused:
        pause = settings.telemetry_seconds
    elif written.get("phase") != Phase.RUNNING:
        pause = settings.probe_seconds
    elif has_first_figures(written):
        pause = settings.telemetry_seconds
    else:
        pause = _FIRST_FIGURES_SECONDS
    return min(pause, wait) if wait else pause


def _unreadable(
    observed: Observed, stored: Json, error: ValidationError, now: datetime
) -> Decision:
    """A job of another version: said in its status, and everything else left as it is."""
    message = admission.unreadable(error)
    claim = Claim(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, message)
    generation = observed.job["metadata"].get("generation")
    new: Json = {"phase": str(Phase.PENDING)} | stored
    new["conditions"] = with_claim(stored, claim, generation, now)
    return Decision(status=new)
