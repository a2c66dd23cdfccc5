"""What is observed of one job, as plain data.

Kubernetes objects are the API server's own JSON as dicts, read and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dtjob_accounting.errors import PlanError
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_api.wire.positions import Role
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.terms.kinds import Json

Child = tuple[str, str]
"""Kind and name of a job's child."""
EventsByObject = Mapping[tuple[str, str], tuple[Json, ...]]
"""core/v1 Events by kind and name of what they are about, newest first."""


class Endpoint(NamedTuple):
    """Where something listens: networks in CIDR notation, and TCP ports.

    Without networks it is not known at which address.
    """

    networks: tuple[str, ...]
    ports: tuple[int, ...]


def has_addresses(endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether addresses are known, and not ports alone."""
    return any(endpoint.networks for endpoint in endpoints)


@dataclass(frozen=True)
class Spent:
    """What was spent.

    Attributes
    ----------
    epsilon
        As a decimal string, rounded up.
    draws
        The draws that it is of: charged, or found on the volume.
    """

    epsilon: str
    draws: int


class EarlierRun(NamedTuple):
    """An earlier run of the same work that has not succeeded, or is not to count."""

    ledger: str
    charged: int


@dataclass(frozen=True)
class Rejection:
    """An apply that the API server does not do: not a conflict, not an outage.

    It refused (403, 422), or failed at it more than once (500, a webhook that is away).
    """

    kind: str
    name: str
    message: str
    """The API server's own message."""


@dataclass(frozen=True)
class Observed:
    """Everything that a decision about one job depends on, apart from the time.

    Attributes
    ----------
    job
        The stored DistributedTrainingJob, status included. A status older than the operator's own
        last patch makes it repeat that patch.
    parsed
        The same job without its status, where whoever observed it has parsed it.
    ledger, coordinator_set, worker_set, service, network_policy, disruption_budget, autoscaler
        The objects that have the names of children (`terms.names`), whoever owns them. Whole as far
        as `trimmed` leaves them: drift is found by comparing them with what is wanted.
    is_done_before
        `ledger` is that of an earlier job, which has done this one's work.
    earlier_runs
        What others of the same work have charged, while this job has no ledger.
    ledgers_undefined
        The ledger is gone because the API server knows of no ledgers at all.
    service_account, role_binding
        The objects named `kinds.WORKER_ACCOUNT`, whoever owns them, whole likewise.
    pods
        Of the job's namespace, with the job's label `dtjob.dev/job-uid` and a position in its gang
        (`names.position_of`); those that are `unlabelled` too, for they are workers all the same.
        Used of each: metadata (name, deletionTimestamp, creationTimestamp, ownerReferences),
        spec.nodeName, status.{phase, reason, message, startTime, conditions, containerStatuses,
        initContainerStatuses}.
    nodes
        By name, of pods that should have gone: None where there is none of that name, and absent
        where it is not known. Used of each: spec.taints, and status.conditions of type Ready.
    claim
        The checkpoint claim. Used of it: metadata, spec.{storageClassName,
        volumeName}, status.phase.
    unlabelled
        Of the pods that its StatefulSets miss, those that exist: by name, the labels of a worker
        that each lacks.
    api_server
        Where the API server says it is. One endpoint without networks where only ports are
        known, empty where nothing is.
    events
        core/v1 Events of type Warning about the job's StatefulSets, pods and claim; needed only
        while the job is not Running, and those last known where they can't be listed.
    report
        The coordinator's own, as last scraped; None when there is none, its pod has gone, or it is
        too old to be vouched for.
    report_trouble
        Where and why the report has not been read for half a minute; None while it is, or may be.
    privacy_plan
        The plan, or why there can't be one; None while it is calibrated. Not needed once the
        ledger exists.
    planning_trouble
        Why the last calibration came to no end; None where it did, or is the first.
    plans_before
        Calibrations of other jobs that are done before this job's.
    spent
        Epsilon of all draws known to be spent; of fewer while that of all is being computed. None
        when nothing is spent or no figure is there yet.
    spent_at_most
        A bound of epsilon of all draws known to be spent, while `spent` is not of all of them.
    spent_pending
        That of all draws known to be spent is being computed, and may be expected within seconds.
    unguarded
        Why the API server does not guard ledgers; None while it does.
    rejections
        Applies of this job's children that the API server refused when last tried, and that have
        not succeeded since.
    status_written
        When this process last patched the job's status; None: not yet. Figures that move all the
        time are written no more often than `Settings.telemetry_seconds` after it.
    jobs_running
        Jobs in phase Running that this operator looks after: the more there are, the rarer are
        their figures.
    """

    job: Json
    parsed: DistributedTrainingJob | None = None
    ledger: Json | None = None
    is_done_before: bool = False
    earlier_runs: tuple[EarlierRun, ...] = ()
    ledgers_undefined: bool = False
    coordinator_set: Json | None = None
    worker_set: Json | None = None
    service: Json | None = None
    network_policy: Json | None = None
    disruption_budget: Json | None = None
    autoscaler: Json | None = None
    service_account: Json | None = None
    role_binding: Json | None = None
    pods: tuple[Json, ...] = ()
    nodes: Mapping[str, Json | None] = field(default_factory=dict)
    claim: Json | None = None
    unlabelled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    api_server: tuple[Endpoint, ...] = ()
    events: EventsByObject = field(default_factory=dict)
    report: WorkerReport | None = None
    report_trouble: str | None = None
    privacy_plan: PrivacyPlan | PlanError | None = None
    planning_trouble: str | None = None
    plans_before: int = 0
    spent: Spent | None = None
    spent_at_most: str | None = None
    spent_pending: bool = False
    unguarded: str | None = None
    rejections: tuple[Rejection, ...] = ()
    status_written: datetime | None = None
    jobs_running: int = 1

    def stateful_set(self, role: Role) -> Json | None:
        """The object that has the name of a role's StatefulSet."""
        return self.coordinator_set if role is Role.COORDINATOR else self.worker_set
