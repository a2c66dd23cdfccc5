"""Where one job stands: the facts and obstacles on which children and status both depend."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from datetime import datetime

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import ConditionType
from dtjob_api.wire.well_known import HTTP_PORT
from dtjob_operator.decide.deadlines import overdue
from dtjob_operator.decide.facts import Facts, gather
from dtjob_operator.decide.obstacles.obstacle import Children, Obstacle, children, obstacle_to
from dtjob_operator.decide.obstacles.order import find
from dtjob_operator.decide.restriction import Restriction, restriction
from dtjob_operator.read import pod_status
from dtjob_operator.read.status_conditions import is_terminal
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings


@dataclass(frozen=True)
class Situation(Facts):
    """The facts about one job, and what is in its way.

    Attributes
    ----------
    obstacles
        What keeps the job from training, in order: `obstacles.order`.
    restriction
        How far the workers' network is closed.
    """

    obstacles: tuple[Obstacle, ...]
    restriction: Restriction

    @property
    def finished(self) -> bool:
        """Whether the stored status is terminal: it never changes again."""
        return is_terminal(self.stored)

    @functools.cached_property
    def overdue(self) -> Finding | None:
        """Why the job is to fail that has taken too long."""
        return overdue(self)

    @functools.cached_property
    def failure(self) -> Finding | None:
        """Why the job fails though its ledger has no outcome: it was overdue, and rests."""
        return self.overdue if self.at_rest and not self.observed.pods else None

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
        return self.may_have_spent or any(a.end is not None for a in self.attempts)

    @property
    def training(self) -> bool:
        """Whether the gang has formed, has leased draws, and nothing is lost."""
        return self.is_training and self.children is not Children.RELEASED

    @functools.cached_property
    def growth_obstacle(self) -> Finding | None:
        """Why workers do not come up that are to join those that train."""
        grown = replace(self, workers=self.target, gang_formed=False)
        found = (each for each in find(grown) if each.kind.of_a_start)
        return obstacle_to(ConditionType.RESOURCES_READY, found)

    @functools.cached_property
    def ready(self) -> int:
        """Worker pods that are ready; none once the job has ended: they only wait for their end."""
        if self.outcome is not None:
            return 0
        return sum(pod_status.is_ready(pod) for pod in self.observed.pods)

    @property
    def unreadable_report(self) -> str | None:
        """Where and why the coordinator's report can't be read, and what would help."""
        if self.observed.report_trouble is None:
            return None
        return (
            f"the coordinator's report can't be read at {self.observed.report_trouble}, so speed, "
            "GPUs and end are unknown and progress is that of the newest checkpoint: allow ingress "
            f"from namespace {self.settings.operator_namespace} to the workers' port {HTTP_PORT} "
            "in NetworkPolicies and service meshes"
        )


def assess(
    observed: Observed, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Situation:
    """Derive the facts from what is observed, and find what is in the way."""
    facts = gather(observed, job, now, settings)
    obstacles = find(facts)
    unmade = obstacle_to(ConditionType.NETWORK_RESTRICTED, obstacles)
    return Situation(
        **{field.name: getattr(facts, field.name) for field in fields(facts)},
        obstacles=obstacles,
        restriction=restriction(observed, job, facts.network_policy, unmade, settings),
    )
