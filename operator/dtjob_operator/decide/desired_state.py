"""What to do about one job now: a pure function of what was observed."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import ValidationError

from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_operator.decide import admission, children
from dtjob_operator.decide.deadlines import seconds_held, seconds_kept, seconds_to_deadline
from dtjob_operator.decide.lost_nodes import lost_pods, overdue_pods
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.situation import Situation, assess
from dtjob_operator.decide.status.announcements import (
    announcements,
    ended_by_force,
    spends_again,
)
from dtjob_operator.decide.status.condition_state import ConditionState
from dtjob_operator.decide.status.conditions import with_condition
from dtjob_operator.decide.status.job_status import status
from dtjob_operator.decide.status.pacing import has_first_figures, seconds_until_write
from dtjob_operator.decide.status.runs import announced, next_run
from dtjob_operator.read.status_conditions import is_terminal
from dtjob_operator.read.stored_job import parsed
from dtjob_operator.terms import kinds
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.decision import Decision, Event, Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings

_PLANNING_SHOWN_AFTER = timedelta(seconds=3)
_FIRST_FIGURES_SECONDS = 1.0
# Figures that have not come by then will not come soon.
_FIRST_FIGURES_WITHIN = timedelta(seconds=60)


def decide(observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Decide what to apply, what the job's status should be, and when to look again.

    There is no I/O, clock or randomness: equal arguments give equal decisions. Once a decision is
    carried out, the next one applies nothing and leaves the status as it is.
    """
    stored: Json = observed.job.get("status") or {}
    if "deletionTimestamp" in observed.job["metadata"]:
        return Decision(status=stored)
    try:
        job = observed.parsed or parsed(observed.job)
    except ValidationError as error:
        return _unreadable(observed, stored, error, now)
    situation = assess(observed, job, now, settings)
    if (begun := next_run(situation)) is not None:
        return Decision(status=begun, events=(announced(begun),), wake_after=0.0)
    ends = situation.outcome is not None or situation.failure is not None
    if ends and not situation.finished and observed.spent_pending:
        # The end is reported with its whole cost, not with the figure of fewer draws.
        return Decision(status=stored, wake_after=settings.telemetry_seconds)
    refusal = None
    if _is_undecided(situation) and not situation.finished:
        refusal = admission.refusal(observed, job)
    applies = () if refusal else tuple(children.applies(situation))
    makes_ledger = situation.ledger is None and any(map(_is_ledger, applies))
    again = spends_again(observed) if makes_ledger else ()
    if (pause := _seconds_to_better_news(situation, refusal, applies, now)) is not None:
        return Decision(applies=applies, status=stored, events=again, wake_after=pause)
    new = status(observed, situation, refusal, now)
    wait = seconds_until_write(
        stored, new, observed.status_written, now, settings, observed.jobs_running
    )
    written = new if wait == 0 else stored
    news: tuple[Event, ...] = ()
    if wait == 0:
        news = announcements(stored, written, situation.workers)
    return Decision(
        applies=applies,
        deletes=tuple(children.deletes(situation)),
        status=written,
        events=again + news + tuple(ended_by_force(overdue_pods(situation))),
        wake_after=_wake_after(situation, written, wait, now, settings),
    )


def _seconds_to_better_news(
    situation: Situation, refusal: Finding | None, applies: tuple[Json, ...], now: datetime
) -> float | None:
    """How long a new job has no status yet, for the sake of a write; None: it has one now.

    A plan mostly takes a second or less, and the ledger is there with the next look.
    """
    observed = situation.observed
    if situation.stored or refusal is not None or situation.obstacles:
        return None
    if any(map(_is_ledger, applies)):
        return 0.0
    if not _is_undecided(situation) or observed.planning_trouble is not None:
        return None
    created = datetime.fromisoformat(observed.job["metadata"]["creationTimestamp"])
    left = (_PLANNING_SHOWN_AFTER - elapsed(created, now)).total_seconds()
    return left if left > 0 else None


def _is_ledger(child: Json) -> bool:
    return bool(child["kind"] == kinds.LEDGER.name)


def _is_undecided(situation: Situation) -> bool:
    """Whether the job has neither a ledger nor anything that keeps one from being made."""
    return situation.ledger is None and situation.children is Children.KEPT


def _wake_after(
    situation: Situation, written: Json, wait: float | None, now: datetime, settings: Settings
) -> float | None:
    """Seconds to the next look: few where no watch will report what is awaited."""
    if is_terminal(written):
        # The status comes first: the pods are released when it is stored.
        return _next_end(situation, wait) if situation.finished else 0.0
    if _is_undecided(situation):
        return wait or None  # the accountant calls; its answer may have to wait for its write
    if situation.obstacles:
        pause = situation.obstacles[0].kind.retry_after(settings)
    elif written.get("phase") == Phase.SUSPENDED:
        return wait or None
    elif written.get("phase") != Phase.RUNNING:
        pause = settings.probe_seconds
    elif has_first_figures(written) or not _has_just_begun(situation, now):
        pause = settings.telemetry_seconds
    else:
        pause = _FIRST_FIGURES_SECONDS
    pause = min(pause, wait) if wait else pause
    deadline = seconds_to_deadline(situation)
    return pause if deadline is None else min(pause, deadline)


def _next_end(situation: Situation, wait: float | None) -> float | None:
    """Seconds until something of a job that has ended is taken away."""
    forced = [(each.due - situation.now).total_seconds() for each in lost_pods(situation)]
    times = (wait, seconds_held(situation), seconds_kept(situation), *forced)
    return min((each for each in times if each and each > 0), default=wait)


def _has_just_begun(situation: Situation, now: datetime) -> bool:
    last = situation.last_attempt
    return last is not None and elapsed(last.start, now) < _FIRST_FIGURES_WITHIN


def _unreadable(
    observed: Observed, stored: Json, error: ValidationError, now: datetime
) -> Decision:
    """Say in the status that another version made the job; leave all else as it is."""
    message = admission.unreadable(error)
    state = ConditionState(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, message)
    generation = observed.job["metadata"].get("generation")
    new: Json = {"phase": str(Phase.PENDING)} | stored
    new["conditions"] = with_condition(stored, state, generation, now)
    return Decision(status=new)
