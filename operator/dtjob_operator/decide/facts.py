"""The facts about one job at one moment, of which obstacles, children and status are made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from dtjob_accounting.errors import PlanError
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import NetworkPolicyMode
from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    OrderState,
    Outcome,
    PrivacyLedger,
    PrivacyPlan,
)
from dtjob_api.ledger.proven import may_lack_draws
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.read import pod_status
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings

# A probe may find a worker ready some seconds after the gang has formed.
_PROBE_SLACK = timedelta(seconds=30)
# For a kubelet to kill what has not ended by a pod's deletionTimestamp, and to report it.
_KILL_SLACK = timedelta(seconds=10)


@dataclass(frozen=True)
class Facts:
    """What is observed, and what it says together.

    Attributes
    ----------
    stored
        The job's status as stored, {} if it has none.
    ledger
        The job's own ledger; None if there is none or it can't be read.
    unreadable
        Why it can't be read.
    workers
        Pods of the gang: those of the ledger's order, which may be about to change.
    coordinator
        Its pod.
    report
        The coordinator's, if it speaks of the ledger's attempt.
    gang_formed
        The gang of the current attempt has formed and its coordinator lives.
    network_policy
        The one that the job should have; None where it asks for none.
    """

    observed: Observed
    job: DistributedTrainingJob
    stored: Json
    ledger: PrivacyLedger | None
    unreadable: ValidationError | None
    workers: int
    coordinator: Json | None
    report: WorkerReport | None
    gang_formed: bool
    network_policy: Json | None
    now: datetime
    settings: Settings

    @functools.cached_property
    def settled_pods(self) -> list[Json]:
        """Pods that have had a node, or none, for long enough; not those being deleted."""
        least = timedelta(seconds=self.settings.settle_seconds)
        return [
            pod
            for pod in self.observed.pods
            if "deletionTimestamp" not in pod["metadata"]
            and elapsed(pod_status.scheduled_at(pod), self.now) >= least
        ]

    @property
    def plan(self) -> PrivacyPlan | None:
        """The plan that a ledger can be made of; None while there is none, or where none can be."""
        plan = self.observed.privacy_plan
        return None if isinstance(plan, PlanError) else plan

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended, as the ledger has it."""
        return self.ledger.status.outcome if self.ledger else None

    @property
    def last_attempt(self) -> AttemptRecord | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def attempts(self) -> list[AttemptRecord]:
        """The newest attempts, oldest first."""
        return self.ledger.status.attempts if self.ledger else []

    @property
    def target(self) -> int:
        """Worker pods that are asked for, within the bounds of an autoscaler."""
        spec = self.job.spec
        asked = spec.workers.replicas
        return spec.autoscaling.clamped(asked) if spec.autoscaling else asked

    @property
    def at_rest(self) -> bool:
        """Whether the workers are ordered to stop, or not to begin."""
        return self.ledger is not None and self.ledger.spec.run.state is not OrderState.RUN

    @property
    def follows_a_new_order(self) -> bool:
        """Whether the newest attempt was of an order that another has replaced."""
        last = self.last_attempt
        if self.ledger is None or last is None or last.generation is None:
            return False
        return last.generation < self.ledger.spec.run.generation

    @property
    def is_training(self) -> bool:
        """Whether the gang has formed and has leased draws."""
        status = self.ledger.status if self.ledger else None
        # Also while it ends in order: its lease is closed a moment before its record is.
        return bool(
            status and self.gang_formed and status.lease and status.lease.attempt == status.attempt
        )

    @property
    def may_have_spent(self) -> bool:
        """Whether draws are charged, or were spent, or may have been, that the ledger lacks.

        Attempts that ended before that were starts.
        """
        if self.ledger is None:
            return False
        return self.ledger.status.charged > 0 or may_lack_draws(self.ledger.status) is not None


def is_restricted(job: DistributedTrainingJob) -> bool:
    """Whether the job asks for a NetworkPolicy."""
    return job.spec.network.policy is NetworkPolicyMode.RESTRICTED


def gather(
    observed: Observed, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Facts:
    """Derive the facts from what is observed."""
    ledger, unreadable = _own_ledger(observed, job)
    first = names.pod_name(job, 0)
    coordinator = next((p for p in observed.pods if p["metadata"]["name"] == first), None)
    report = observed.report
    if ledger is None or report is None or report.attempt != ledger.status.attempt:
        report = None
    return Facts(
        observed=observed,
        job=job,
        stored=observed.job.get("status") or {},
        ledger=ledger,
        unreadable=unreadable,
        workers=ledger.spec.run.workers if ledger else job.spec.workers.replicas,
        coordinator=coordinator,
        report=report,
        gang_formed=ledger is not None and _gang_has_formed(ledger, coordinator, report, now),
        network_policy=(
            network_policy(job, observed.api_server, settings) if is_restricted(job) else None
        ),
        now=now,
        settings=settings,
    )


def _own_ledger(
    observed: Observed, job: DistributedTrainingJob
) -> tuple[PrivacyLedger | None, ValidationError | None]:
    raw = observed.ledger
    if raw is None or not (observed.is_done_before or names.is_own_ledger(raw, job)):
        return None, None
    try:
        return PrivacyLedger.from_dict(raw), None
    except ValidationError as error:
        return None, error


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
    if pod_status.has_outlived(coordinator, now, _KILL_SLACK):
        return False
    started = pod_status.running_since(coordinator)
    if started is None:
        return False
    heard = report.heartbeat if report is not None else None
    if heard is not None and _is_fresh(heard, now) and (heard >= started or started > now):
        return True  # from this very container: an attempt that seems older is of another clock
    if started > last.start:
        return False
    signs = (last.start, status.checkpoint.time if status.checkpoint else None)
    is_fresh = any(_is_fresh(sign, now) for sign in signs)
    return is_fresh or pod_status.has_ready_condition(coordinator)


def _is_fresh(sign: datetime | None, now: datetime) -> bool:
    """Whether it is of now. One of the future is of a clock that was ahead: it would hold for days.

    That a gang has formed is seen late by a probe.
    """
    return sign is not None and abs(now - sign) < _PROBE_SLACK
