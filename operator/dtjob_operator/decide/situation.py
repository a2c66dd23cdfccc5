"""Where one job stands: the facts on which children and status both depend."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import NetworkPolicyMode
from dtjob_api.ledger.privacy_ledger import AttemptRecord, Outcome, PrivacyLedger
from dtjob_api.ledger.proven import may_lack_draws, proven_draws
from dtjob_api.model import first_error
from dtjob_api.reasons import TRAINING_HELD, ConditionType, Reason, known
from dtjob_api.wire.well_known import HTTP_PORT
from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.decide.diagnosis.crashes import crash
from dtjob_operator.decide.diagnosis.first_obstacle import diagnose
from dtjob_operator.decide.diagnosis.memory_kills import killed_for_memory
from dtjob_operator.decide.older_shape import older_shape
from dtjob_operator.decide.ownership import conflict
from dtjob_operator.decide.restriction import Restriction, restriction
from dtjob_operator.read import pod_status
from dtjob_operator.read.status_conditions import condition, is_terminal, is_true
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import JOB_UID_LABEL, Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings

# States in which a coordinator's reason says why it does not train.
_IDLE = frozenset({WorkerState.HELD, WorkerState.WAITING})
# A probe may find a worker ready some seconds after the gang has formed.
_PROBE_SLACK = timedelta(seconds=30)
# For a kubelet to kill what has not ended by a pod's deletionTimestamp, and to report it.
_KILL_SLACK = timedelta(seconds=10)


@dataclass(frozen=True)
class Situation:
    """The facts about one job at one moment.

    Attributes
    ----------
    stored
        The job's status as stored, {} if it has none.
    ledger
        The job's own ledger; None if there is none or it can't be read.
    halted
        What is lost that pods must not run without: the ledger, or the volume of spent draws.
    blocked
        Why nothing can be made or repaired: a name that another object has, a ledger or StatefulSet
        of another version, an API server that would let ledgers be lowered. Pods that run are left
        running.
    held
        Why the workers themselves refuse to train, nothing being lost (Rule 11, a full disk).
    obstacle
        What keeps pods from coming up.
    memory_kill
        That a worker was killed for want of memory in the newest attempt, which has ended by it.
    report
        The coordinator's, if it speaks of the ledger's attempt.
    unreadable_report
        Where and why the coordinator's report can't be read, and what would help.
    network_policy
        The one that the job should have; None where it asks for none.
    restriction
        How far the workers' network is closed.
    planning_trouble
        Why the last calibration of the noise came to no end.
    plans_before
        How many jobs' noise is calibrated before this job's.
    gang_formed
        The gang of the current attempt has formed and its coordinator lives.
    training
        It has leased draws too, and nothing is lost.
    ready
        Worker pods that are ready; none once the job has ended, when they only wait for their end.
    """

    job: DistributedTrainingJob
    stored: Json
    ledger: PrivacyLedger | None
    halted: Finding | None
    blocked: Finding | None
    held: Finding | None
    obstacle: Finding | None
    memory_kill: Finding | None
    report: WorkerReport | None
    unreadable_report: str | None
    network_policy: Json | None
    restriction: Restriction
    planning_trouble: str | None
    plans_before: int
    gang_formed: bool
    training: bool
    ready: int
    workers: int

    @property
    def finished(self) -> bool:
        """Whether the stored status is terminal: it never changes again."""
        return is_terminal(self.stored)

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended, as the ledger has it."""
        return self.ledger.status.outcome if self.ledger else None

    @property
    def last_attempt(self) -> AttemptRecord | None:
        """The newest attempt."""
        return self.ledger.status.attempts[-1] if self.ledger and self.attempts else None

    @property
    def attempts(self) -> list[AttemptRecord]:
        """The newest attempts, oldest first."""
        return self.ledger.status.attempts if self.ledger else []

    @property
    def has_trained(self) -> bool:
        """Whether a draw is spent, or may be: attempts that ended before that were starts."""
        return self.ledger is not None and _may_have_spent(self.ledger)

    @property
    def has_ended_attempt(self) -> bool:
        """Whether an attempt has ended, or has trained and is not there any more."""
        return self.has_trained or any(a.end is not None for a in self.attempts)


def assess(
    observed: Observed, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Situation:
    """Derive the facts from what is observed."""
    stored = observed.job.get("status") or {}
    ledger, unreadable = _own_ledger(observed, job)
    workers = ledger.spec.run.workers if ledger else job.spec.workers.replicas
    foreign = conflict(observed, job) or older_shape(observed, job)
    blocked = unreadable or _unguarded(observed) or foreign
    if ledger is not None:
        halted = _claim_lost(observed, job, ledger)
    else:
        halted = None if unreadable else _ledger_missing(observed, job, stored)
    coordinator = next(
        (p for p in observed.pods if p["metadata"]["name"] == names.pod_name(job, 0)), None
    )
    report = observed.report
    if ledger is None or report is None or report.attempt != ledger.status.attempt:
        report = None
    gang_formed = ledger is not None and _gang_has_formed(ledger, coordinator, report, now)
    lease = ledger.status.lease if ledger else None
    ended = ledger is not None and ledger.status.outcome is not None
    training = bool(
        gang_formed
        and halted is None
        and ledger
        and lease
        # Also while it ends in order: its lease is closed a moment before its record is.
        and lease.attempt == ledger.status.attempt
    )
    policy = (
        network_policy(job, observed.api_server, settings)
        if job.spec.network.policy is NetworkPolicyMode.RESTRICTED
        else None
    )
    return Situation(
        job=job,
        stored=stored,
        ledger=ledger,
        halted=halted,
        blocked=blocked,
        held=None if gang_formed else _held(ledger, coordinator, report),
        obstacle=None if gang_formed else diagnose(observed, job, workers, now, settings),
        memory_kill=None if gang_formed else _memory_kill(observed, job, ledger),
        report=report,
        unreadable_report=_unreadable_report(observed, settings),
        network_policy=policy,
        restriction=restriction(observed, job, policy, halted or blocked, settings),
        planning_trouble=observed.planning_trouble,
        plans_before=observed.plans_before,
        gang_formed=gang_formed,
        training=training,
        ready=0 if ended else sum(pod_status.is_ready(pod) for pod in observed.pods),
        workers=workers,
    )


def _own_ledger(
    observed: Observed, job: DistributedTrainingJob
) -> tuple[PrivacyLedger | None, Finding | None]:
    raw = observed.ledger
    if raw is None or raw.get("spec", {}).get("jobUID") != job.metadata.uid:
        return None, None
    try:
        return PrivacyLedger.from_dict(raw), None
    except ValidationError as error:
        return None, Finding(
            Reason.LEDGER_UNREADABLE,
            f"PrivacyLedger {raw['metadata']['name']} can't be read: {first_error(error)}. "
            "Nothing was changed; run the operator's version that wrote it",
        )


def _unguarded(observed: Observed) -> Finding | None:
    if observed.unguarded is None:
        return None
    return Finding(
        Reason.LEDGERS_UNGUARDED,
        f"nothing is started while ledgers are not protected: {observed.unguarded}. Pods that run "
        "are left running",
    )


def _ledger_missing(
    observed: Observed, job: DistributedTrainingJob, stored: Json
) -> Finding | None:
    """Rule 11: what was spent is unknown, so nothing is trained and no ledger is made anew.

    StatefulSets and claim come only after the ledger, so that they too prove that there was one.
    Once it is known to be missing, only the ledger itself proves otherwise.
    """
    sets = (observed.coordinator_set, observed.worker_set)
    own_set = any(of_set is not None and names.is_ours(of_set, job) for of_set in sets)
    running = condition(stored, ConditionType.RUNNING)
    known = running is not None and running["reason"] == Reason.LEDGER_MISSING
    if not (is_true(stored, ConditionType.ACCEPTED) or own_set or observed.claim or known):
        return None
    gone = f"PrivacyLedger {names.child_name(job)} in namespace {names.namespace(job)} is gone"
    if observed.ledgers_undefined:
        return Finding(
            Reason.LEDGER_MISSING,
            f"{gone}, with the CustomResourceDefinition of all ledgers. Nothing runs and nothing "
            "is made anew: install this release's definitions first, and then restore the ledger, "
            "with its status, from the newest backup",
        )
    return Finding(
        Reason.LEDGER_MISSING,
        f"{gone}, and with it the record of what was spent. Nothing runs and nothing is made anew: "
        "restore it, with its status, from the newest backup, or create a new job, which spends "
        "anew",
    )


def _claim_lost(
    observed: Observed, job: DistributedTrainingJob, ledger: PrivacyLedger
) -> Finding | None:
    """Rule 11: without the volume of a job that has spent draws there is no silent restart."""
    name = names.claim_name(job)
    if observed.claim is not None or not _may_have_spent(ledger):
        return None
    held = f"{proven_draws(ledger.status.to_dict())} draws"
    then = "the job goes on"
    if may_lack_draws(ledger.status) is not None:
        held = f"at least {held}"
        then = "the job goes on once the ledger is raised too (dtjob ledger restore)"
    return Finding(
        Reason.CHECKPOINT_LOST,
        f"PersistentVolumeClaim {name} in namespace {names.namespace(job)} is gone: it held the "
        f"checkpoints and the journal of {held}. Restore it under this name, with label "
        f"{JOB_UID_LABEL}={job.metadata.uid}, from a snapshot, and {then}; or create "
        "a new job, which spends anew",
    )


def _may_have_spent(ledger: PrivacyLedger) -> bool:
    """Whether draws are charged, or were spent, or may have been, that the ledger lacks."""
    return ledger.status.charged > 0 or may_lack_draws(ledger.status) is not None


def _memory_kill(
    observed: Observed, job: DistributedTrainingJob, ledger: PrivacyLedger | None
) -> Finding | None:
    last = ledger.status.attempts[-1] if ledger and ledger.status.attempts else None
    return killed_for_memory(observed.pods, job, last)


def _unreadable_report(observed: Observed, settings: Settings) -> str | None:
    if observed.report_trouble is None:
        return None
    return (
        f"the coordinator's report can't be read at {observed.report_trouble}, so speed, GPUs and "
        f"end are unknown and progress is that of the newest checkpoint: allow ingress from "
        f"namespace {settings.operator_namespace} to the workers' port {HTTP_PORT} in "
        "NetworkPolicies and service meshes"
    )


def _gang_has_formed(
    ledger: PrivacyLedger, coordinator: Json | None, report: WorkerReport | None, now: datetime
) -> bool:
    """Whether the current attempt runs in the coordinator that is there now.

    After an outage of the API server a pod may not be ready only because its node has not reported
    yet: the attempt's own signs of life count for more. In a pod that is being deleted it runs
    until it has recorded how it ends.
    """
    status = ledger.status
    last = status.attempts[-1] if status.attempts else None
    if last is None or last.attempt != status.attempt or last.end is not None:
        return False
    if coordinator is None:
        return False
    killed_by = coordinator["metadata"].get("deletionTimestamp")
    if killed_by is not None and now > datetime.fromisoformat(killed_by) + _KILL_SLACK:
        return False
    started = pod_status.running_since(coordinator)
    if started is None or started > last.start:
        return False
    signs = [last.start]
    if status.checkpoint is not None:
        signs.append(status.checkpoint.time)
    if report is not None and report.heartbeat is not None:
        signs.append(report.heartbeat)
    # A sign of the future is of a clock that was ahead: it would count for days.
    is_fresh = any(abs(now - sign) < _PROBE_SLACK for sign in signs)
    return is_fresh or pod_status.has_ready_condition(coordinator)


def _held(
    ledger: PrivacyLedger | None, coordinator: Json | None, report: WorkerReport | None
) -> Finding | None:
    """Why the coordinator refuses to train, by the newest source that says so."""
    ended = crash(coordinator) if coordinator else None
    if ended is not None and ended.held:
        return Finding(ended.reason, ended.message)
    if report is not None and report.state in _IDLE and (reason := known(report.reason)):
        return Finding(reason, report.message or str(reason))
    last = ledger.status.attempts[-1] if ledger and ledger.status.attempts else None
    reason = known(last.reason) if last is not None and last.end else None
    if last is not None and reason in TRAINING_HELD:
        return Finding(reason, last.message or str(reason))
    return None
