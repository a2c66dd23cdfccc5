"""Workers that refuse to train, nothing being lost (Rule 11, a full disk)."""

from __future__ import annotations

from dtjob_api.reasons import TRAINING_HELD, ConditionType, Reason, known
from dtjob_api.wire.worker_report import WorkerState
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.crashes import crash
from dtjob_operator.decide.obstacles.obstacle import ObstacleKind
from dtjob_operator.terms.decision import Finding

# States in which a coordinator's reason says why it does not train.
_IDLE = frozenset({WorkerState.HELD, WorkerState.WAITING})
_OF_THE_VOLUME = frozenset({Reason.CHECKPOINT_LOST, Reason.STORAGE_FULL, Reason.STORAGE_UNUSABLE})


def _refusal(facts: Facts) -> Finding | None:
    """Why the coordinator refuses to train, by the newest source that says so."""
    ended = crash(facts.coordinator, facts.job) if facts.coordinator else None
    if ended is not None and ended.held:
        return Finding(ended.reason, ended.message)
    report, last = facts.report, facts.last_attempt
    if report is not None and report.state in _IDLE and (reason := known(report.reason)):
        return Finding(reason, report.message or str(reason))
    if last is None or last.end is None or facts.follows_a_new_order:
        return None
    if (reason := known(last.reason)) in TRAINING_HELD:
        return Finding(reason, last.message or str(reason))
    return None


def _refusal_of_the_volume(facts: Facts) -> Finding | None:
    found = _refusal(facts)
    return found if found is not None and found.reason in _OF_THE_VOLUME else None


OF_THE_VOLUME = ObstacleKind(
    detect=_refusal_of_the_volume,
    conditions=frozenset({ConditionType.RUNNING, ConditionType.CHECKPOINT_FRESH}),
    of_a_start=True,
)
OTHERWISE = ObstacleKind(
    detect=_refusal, conditions=frozenset({ConditionType.RUNNING}), of_a_start=True
)
