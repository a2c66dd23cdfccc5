"""Where one job stands: the facts on which children and status both depend."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import NetworkPolicyMode
from dtjob_api.ledger.privacy_ledger import AttemptRecord, Outcome, PrivacyLedger
from dtjob_api.reasons import ConditionType
from dtjob_api.wire.well_known import HTTP_PORT
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.decide.facts import gather
from dtjob_operator.decide.obstacles.obstacle import Children, Obstacle, children, obstacle_to
from dtjob_operator.decide.obstacles.order import find
from dtjob_operator.decide.restriction import Restriction, restriction
from dtjob_operator.read import pod_status
from dtjob_operator.read.status_conditions import is_terminal
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings


@dataclass(frozen=True)
class Situation:
    """The facts about one job at one moment.

    Attributes
    ----------
    stored
        The job's status as stored, {} if it has none.
    ledger
        The job's own ledger; None if there is none or it can't be read.
    obstacles
        What keeps the job from training, in order: `obstacles.order`.
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
    has_trained
        A draw is spent, or may be: attempts that ended before that were starts.
    ready
        Worker pods that are ready; none once the job has ended, when they only wait for their end.
    """

    job: DistributedTrainingJob
    stored: Json
    ledger: PrivacyLedger | None
    obstacles: tuple[Obstacle, ...]
    report: WorkerReport | None
    unreadable_report: str | None
    network_policy: Json | None
    restriction: Restriction
    planning_trouble: str | None
    plans_before: int
    gang_formed: bool
    training: bool
    has_trained: bool
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
    def children(self) -> Children:
        """What becomes of the job's children."""
        return children(self.obstacles)

    def obstacle_to(self, condition: ConditionType) -> Finding | None:
        """Why a condition can't be; None where nothing is in its way."""
        return obstacle_to(condition, self.obstacles)

    @property
    def has_ended_attempt(self) -> bool:
        """Whether an attempt has ended, or has trained and is not there any more."""
        return self.has_trained or any(a.end is not None for a in self.attempts)


def assess(
    observed: Observed, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Situation:
    """Derive the facts from what is observed, and find what is in the way."""
    facts = gather(observed, job, now, settings)
    ledger, obstacles = facts.ledger, find(facts)
    lease = ledger.status.lease if ledger else None
    ended = ledger is not None and ledger.status.outcome is not None
    training = bool(
        facts.gang_formed
        and children(obstacles) is not Children.RELEASED
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
    unmade = obstacle_to(ConditionType.NETWORK_RESTRICTED, obstacles)
    return Situation(
        job=job,
        stored=facts.stored,
        ledger=ledger,
        obstacles=obstacles,
        report=facts.report,
        unreadable_report=_unreadable_report(observed, settings),
        network_policy=policy,
        restriction=restriction(observed, job, policy, unmade, settings),
        planning_trouble=observed.planning_trouble,
        plans_before=observed.plans_before,
        gang_formed=facts.gang_formed,
        training=training,
        has_trained=facts.may_have_spent,
        ready=0 if ended else sum(pod_status.is_ready(pod) for pod in observed.pods),
        workers=facts.workers,
    )


def _unreadable_report(observed: Observed, settings: Settings) -> str | None:
    if observed.report_trouble is None:
        return None
    return (
        f"the coordinator's report can't be read at {observed.report_trouble}, so speed, GPUs and "
        f"end are unknown and progress is that of the newest checkpoint: allow ingress from "
        f"namespace {settings.operator_namespace} to the workers' port {HTTP_PORT} in "
        "NetworkPolicies and service meshes"
    )
