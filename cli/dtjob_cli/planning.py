"""What the operator would compute for a job: its privacy plan and the shape of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dtjob_accounting import draws
from dtjob_accounting.plan import Accountant, Plan, PlanError, make_plan
from dtjob_accounting.process import HelperFailed
from dtjob_accounting.rounding import decimal_up, significant_up
from dtjob_api.derive import plan_request
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_cli.errors import BadInput, CommandError, ExitCode

IMPOSSIBLE = "ImpossiblePlan"


@dataclass(frozen=True)
class StepShape:
    """How every step is laid out (rule 8).

    Attributes
    ----------
    ranks
        W: rank processes over all workers.
    rows
        Q: rows that every step has room for.
    physical_batch_size
        P: rows that a rank holds at once.
    micro_batches
        M: forward and backward passes of a rank in every step.
    """

    ranks: int
    rows: int
    physical_batch_size: int
    micro_batches: int


def privacy_plan(job: DistributedTrainingJob, accountant: Accountant) -> Plan:
    """Return the plan that fixes what a job costs in privacy (rule 9).

    Raises
    ------
    CommandError
        If no noise gives what the job asks for (the message names the field and the remedy), or
        it can't be computed.
    """
    try:
        with answered():
            return make_plan(plan_request(job.spec), accountant)
    except PlanError as error:
        raise BadInput(IMPOSSIBLE, str(error)) from None


@contextmanager
def answered() -> Iterator[None]:
    """Report an accountant that can't be started, or gives no answer, in this block.

    Raises
    ------
    CommandError
    """
    try:
        yield
    except HelperFailed as error:
        raise CommandError(
            ExitCode.FAILED,
            "AccountantFailed",
            f"the privacy accountant gave no answer: {error}.",
            "Nothing is lost: make sure that there is 1 GiB of free memory and that processes can "
            "be started, and run the command again (with --resume if a run had begun).",
        ) from None


def summary(plan: Plan) -> str:
    """Return the plan in one line."""
    draws_paid = f"{plan.steps} steps and {plan.replay_reserve_steps} in reserve"
    if plan.noise_multiplier is None or plan.epsilon_guaranteed is None or plan.delta is None:
        return f"no privacy: {draws_paid}"
    return (
        f"σ = {plan.noise_multiplier:.4g} keeps ε within {decimal_up(plan.epsilon_guaranteed)} at "
        f"δ = {significant_up(plan.delta, 3)} for {draws_paid}; draws are charged ahead, "
        f"{plan.lease_steps} at a time"
    )


def step_shape(job: DistributedTrainingJob, plan: Plan, workers: int) -> StepShape:
    """Return how `workers` workers share a step of the job."""
    spec = job.spec
    ranks = workers * spec.workers.ranks_per_worker
    tail = draws.overflow_tail(plan.delta, plan.reserved_draws)
    rows = draws.batch_size_quantile(plan.dataset_size, plan.batch_size, tail)
    asked = spec.training.physical_batch_size
    physical = asked if isinstance(asked, int) else draws.physical_batch_size(rows, ranks)
    return StepShape(ranks, rows, physical, draws.micro_batches(rows, ranks, physical))
