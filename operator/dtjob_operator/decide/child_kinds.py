"""The kinds of a job's children, in the order in which they are made: what each is, and whose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.positions import Role, positions
from dtjob_operator.decide.builders.autoscaler import autoscaler
from dtjob_operator.decide.builders.disruption_budget import disruption_budget
from dtjob_operator.decide.builders.ledger import followed, ledger
from dtjob_operator.decide.builders.role_binding import role_binding
from dtjob_operator.decide.builders.service import service
from dtjob_operator.decide.builders.service_account import service_account
from dtjob_operator.decide.facts import Facts, is_restricted
from dtjob_operator.decide.gang_sets import desired_set
from dtjob_operator.decide.run_order import next_order, pods_wanted
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json, Kind
from dtjob_operator.terms.observed import Observed


@dataclass(frozen=True)
class ChildKind:
    """One kind of child; each role's StatefulSet is one.

    Attributes
    ----------
    stored
        The object that has its name, whoever owns it.
    wanted
        What it should be, whether it is so or not; None where there should be none, or none yet.
    asked_for
        Whether the job's spec asks for one at all.
    is_own
        Whether an object of its name may be changed.
    is_in_the_way
        Whether the job's own one is to be deleted.
    is_shared
        By the jobs of a namespace. One that a platform team has prepared is used as it is.
    is_of_pods
        Whether it is first made for pods, so that a job that is made suspended has none.
    makes_pods
        Whether there would be pods again as long as it is there.
    """

    kind: Kind
    stored: Callable[[Observed], Json | None]
    wanted: Callable[[Facts], Json | None]
    asked_for: Callable[[DistributedTrainingJob], bool] = lambda _job: True
    is_own: Callable[[Json, DistributedTrainingJob], bool] = names.is_ours
    is_in_the_way: Callable[[Facts, Json], bool] = lambda _facts, _stored: False
    is_shared: bool = False
    is_of_pods: bool = True
    makes_pods: bool = False


def uses_our_account(job: DistributedTrainingJob) -> bool:
    """Whether the job's workers run as the account that the operator makes."""
    return not job.spec.workers.service_account_name


def _binds_another_role(facts: Facts, stored: Json) -> bool:
    """A RoleBinding's roleRef can't be changed in place."""
    wanted = role_binding(names.namespace(facts.job))
    return uses_our_account(facts.job) and stored["roleRef"] != wanted["roleRef"]


def _ledger(facts: Facts) -> Json | None:
    """The ledger until there is one; then no more of it is written than orders and run policy."""
    if facts.ledger is None:
        return ledger(facts.job, facts.plan) if facts.plan is not None else None
    return followed(facts.job, facts.ledger.spec, next_order(facts))


def _is_scaled(job: DistributedTrainingJob) -> bool:
    """Not a job that rests: its number of workers is not to move."""
    return job.spec.autoscaling is not None and not job.spec.suspend


def _autoscaler(facts: Facts) -> Json | None:
    autoscaling = facts.job.spec.autoscaling
    if autoscaling is None or facts.ledger is None:
        return None
    return autoscaler(facts.job, autoscaling)


def _stateful_set(role: Role) -> Callable[[Facts], Json | None]:
    def wanted(facts: Facts) -> Json | None:
        """Only on an observed ledger: no pod ever runs without one, and a set proves its loss."""
        if facts.ledger is None:
            return None
        size = len(positions(role, pods_wanted(facts)))
        if size == 0 and facts.observed.stateful_set(role) is None:
            return None
        return desired_set(facts, role, size)

    return wanted


CHILD_KINDS = (
    ChildKind(
        kinds.SERVICE_ACCOUNT,
        stored=lambda observed: observed.service_account,
        wanted=lambda facts: service_account(names.namespace(facts.job)),
        asked_for=uses_our_account,
        is_own=lambda stored, _job: names.is_made_by_operator(stored),
        is_shared=True,
    ),
    ChildKind(
        kinds.ROLE_BINDING,
        stored=lambda observed: observed.role_binding,
        wanted=lambda facts: role_binding(names.namespace(facts.job)),
        asked_for=uses_our_account,
        is_own=lambda stored, _job: names.is_made_by_operator(stored),
        is_in_the_way=_binds_another_role,
        is_shared=True,
    ),
    ChildKind(
        kinds.SERVICE,
        stored=lambda observed: observed.service,
        wanted=lambda facts: service(facts.job),
    ),
    ChildKind(
        kinds.NETWORK_POLICY,
        stored=lambda observed: observed.network_policy,
        wanted=lambda facts: facts.network_policy,
        asked_for=is_restricted,
        is_in_the_way=lambda facts, _stored: not is_restricted(facts.job),
    ),
    ChildKind(
        kinds.DISRUPTION_BUDGET,
        stored=lambda observed: observed.disruption_budget,
        wanted=lambda facts: disruption_budget(facts.job),
    ),
    ChildKind(
        kinds.LEDGER,
        stored=lambda observed: observed.ledger,
        wanted=_ledger,
        is_own=names.is_own_ledger,
        is_of_pods=False,
    ),
    ChildKind(
        kinds.STATEFUL_SET,
        stored=lambda observed: observed.coordinator_set,
        wanted=_stateful_set(Role.COORDINATOR),
        makes_pods=True,
    ),
    ChildKind(
        kinds.STATEFUL_SET,
        stored=lambda observed: observed.worker_set,
        wanted=_stateful_set(Role.WORKER),
        makes_pods=True,
    ),
    ChildKind(
        kinds.AUTOSCALER,
        stored=lambda observed: observed.autoscaler,
        wanted=_autoscaler,
        asked_for=_is_scaled,
        is_in_the_way=lambda facts, _stored: not _is_scaled(facts.job),
        makes_pods=True,
    ),
)
