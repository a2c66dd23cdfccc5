"""The frozen plan of a job: what its privacy figures are computed from, fixed at admission."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dtjob_accounting import draws
from dtjob_accounting.errors import PlanError
from dtjob_accounting.event import Adjacency

__all__ = ["Accountant", "Plan", "PlanError", "PlanRequest", "make_plan", "warnings"]


COVERED = "CoveredByEpsilon"
#: Beyond it what is released may multiply an attacker's odds by more than 10^8.
_HARDLY_ANY_EPSILON = 20.0
#: Below it a single draw that is known to hold a record has ε above 19, at a δ of 1e-5.
_HARDLY_ANY_NOISE = 0.3


class Accountant(Protocol):
    """What a plan asks of an accountant: `pld` itself or a `process.PldProcess`."""

    def noise_multiplier(
        self, epsilon: float, delta: float, sample_rate: float, draws: int
    ) -> float:
        """Return a σ whose `epsilon` doesn't exceed the target."""

    def epsilon(
        self, noise_multiplier: float, sample_rate: float, draws: int, delta: float
    ) -> float:
        """Return an upper bound of ε after `draws` draws."""

    def version(self) -> str:
        """Return name and version of what computes the figures."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """All that a plan is made from: what a job's manifest says, None where it leaves a default.

    Attributes
    ----------
    dataset_size, batch_size, steps
        N, B and T.
    mode
        `DPSGD`, or `Disabled`, for which σ, ε, δ and C are ignored.
    epsilon, noise_multiplier
        Exactly one of them: the target ε, or σ itself.
    delta
        Default min(1e-5, 1/(10N)).
    max_grad_norm
        C, required unless the mode is `Disabled`.
    every_steps
        Lease length n; default clamp(⌈T/100⌉, 10, 100). Never more than T.
    replay_reserve_steps
        R; default 3n.
    telemetry
        `CoveredByEpsilon`, or `NotCoveredByEpsilon`: whether more is shown than ε covers.
    """

    dataset_size: int
    batch_size: int
    steps: int
    mode: str = "DPSGD"
    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float | None = None
    max_grad_norm: float | None = None
    every_steps: int | None = None
    replay_reserve_steps: int | None = None
    telemetry: str = COVERED


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job's privacy plan; the fields are those of the ledger's frozen plan (rules 9 and 14).

    Attributes
    ----------
    mode
        `DPSGD` or `Disabled`. The latter samples the same way and has no σ, ε, δ or C.
    noise_multiplier
        σ: standard deviation of the noise in units of C.
    sample_rate
        q, rounded up.
    epsilon
        The target; None when the manifest gave σ instead.
    epsilon_guaranteed
        Upper bound of ε after T + R draws under any stopping rule; never above `epsilon`.
    delta
        δ of both.
    max_grad_norm
        C: bound of one example's contribution to a step.
    batch_size, dataset_size
        Expected batch size B and nominal dataset size N, public constants (rule 5).
    steps, replay_reserve_steps, lease_steps
        T, R and n.
    telemetry
        As in the request; it enters no figure, and no report may leave it out.
    """

    mode: str
    noise_multiplier: float | None
    sample_rate: float | None
    epsilon: float | None
    epsilon_guaranteed: float | None
    delta: float | None
    max_grad_norm: float | None
    batch_size: int
    dataset_size: int
    steps: int
    replay_reserve_steps: int
    lease_steps: int
    unit: str = "Example"
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    sampler: str = "Poisson"
    clipping: str = "hooks"
    accountant: str = "PLD"
    accountant_version: str
    telemetry: str = COVERED

    @property
    def reserved_draws(self) -> int:
        """Return T + R, the most draws that the ledger will ever lease."""
        return self.steps + self.replay_reserve_steps


@dataclass(frozen=True)
class _Guarantee:
    """What a plan promises and what that takes; nothing without privacy."""

    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float | None = None
    epsilon_guaranteed: float | None = None


def make_plan(request: PlanRequest, accountant: Accountant) -> Plan:
    """Fix σ and ε of a job from (ε or σ, δ, q, T + R) before its first draw (rule 9).

    Parameters
    ----------
    request
        What the job asks for.
    accountant
        Computes σ or ε; seconds in a cold `pld`, about one in a warm `PldProcess`.

    Raises
    ------
    PlanError
        Names field, value and remedy when no such plan exists.
    """
    _check_counts(request)
    lease, reserve = _lease_and_reserve(request)
    sample_rate = draws.sample_rate(request.batch_size, request.dataset_size)
    if request.mode == "DPSGD":
        guarantee = _guarantee(request, sample_rate, request.steps + reserve, accountant)
    elif request.mode == "Disabled":
        guarantee = _Guarantee()
    else:
        raise PlanError("spec.privacy.mode", request.mode, "must be DPSGD or Disabled")
    return Plan(
        mode=request.mode,
        noise_multiplier=guarantee.noise_multiplier,
        sample_rate=sample_rate,
        epsilon=guarantee.epsilon,
        epsilon_guaranteed=guarantee.epsilon_guaranteed,
        delta=guarantee.delta,
        max_grad_norm=guarantee.max_grad_norm,
        batch_size=request.batch_size,
        dataset_size=request.dataset_size,
        steps=request.steps,
        replay_reserve_steps=reserve,
        lease_steps=lease,
        accountant_version=accountant.version(),
        telemetry=request.telemetry,
    )


def _check_counts(request: PlanRequest) -> None:
    """Refuse numbers of records, rows and steps that no job can have."""
    _at_least("spec.privacy.datasetSize", request.dataset_size, 1)
    _at_least("spec.training.batchSize", request.batch_size, 1)
    _at_least("spec.training.steps", request.steps, 1)
    if request.batch_size > request.dataset_size:
        raise PlanError(
            "spec.training.batchSize",
            request.batch_size,
            f"exceeds spec.privacy.datasetSize {request.dataset_size}; choose an expected batch "
            "size of at most that",
        )
    if request.every_steps is not None:
        _at_least("spec.checkpoint.everySteps", request.every_steps, 1)
    if request.replay_reserve_steps is not None:
        _at_least("spec.privacy.replayReserveSteps", request.replay_reserve_steps, 0)


def _lease_and_reserve(request: PlanRequest) -> tuple[int, int]:
    """Return n and R, asked for or by default (rule 9)."""
    lease = draws.lease_steps(request.steps)
    if request.every_steps is not None:
        lease = min(request.every_steps, request.steps)
    if request.replay_reserve_steps is not None:
        return lease, request.replay_reserve_steps
    return lease, draws.replay_reserve_steps(lease)


def _guarantee(
    request: PlanRequest, sample_rate: float, count: int, accountant: Accountant
) -> _Guarantee:
    """Return σ for the target ε, or ε for the given σ, over `count` = T + R draws (rule 9)."""
    epsilon, sigma = request.epsilon, request.noise_multiplier
    delta = _delta(request.delta, request.dataset_size)
    max_grad_norm = _required("spec.privacy.maxGradNorm", request.max_grad_norm)
    if (epsilon is None) == (sigma is None):
        raise PlanError(
            "spec.privacy.epsilon",
            epsilon,
            "give either epsilon or noiseMultiplier, not both and not neither",
        )
    if sigma is None:
        epsilon = _required("spec.privacy.epsilon", epsilon)
        sigma = accountant.noise_multiplier(epsilon, delta, sample_rate, count)
    else:
        sigma = _required("spec.privacy.noiseMultiplier", sigma)
    guaranteed = accountant.epsilon(sigma, sample_rate, count, delta)
    return _Guarantee(epsilon, delta, sigma, max_grad_norm, guaranteed)


def warnings(plan: Plan) -> list[str]:
    """Return what a user should know of a valid plan, one sentence each; mostly nothing."""
    found = _weak(plan)
    if plan.delta is not None and plan.delta > 1 / (10 * plan.dataset_size):
        found.append(
            f"spec.privacy.delta: {plan.delta:g} exceeds 1/(10·datasetSize) = "
            f"{1 / (10 * plan.dataset_size):.3g}: such a delta admits that whole records leak; "
            f"{draws.default_delta(plan.dataset_size):.3g} or less is customary"
        )
    if plan.replay_reserve_steps < plan.lease_steps < plan.steps:
        found.append(
            f"spec.privacy.replayReserveSteps: {plan.replay_reserve_steps} does not cover one "
            f"lost lease of {plan.lease_steps} steps: after a crash the run may end before step "
            f"{plan.steps}; {draws.replay_reserve_steps(plan.lease_steps)} covers three"
        )
    return found


def _weak(plan: Plan) -> list[str]:
    """State what is customary where a plan is valid but protects hardly anybody."""
    sigma, guaranteed = plan.noise_multiplier, plan.epsilon_guaranteed
    if sigma is None or guaranteed is None:
        return []
    asked = f"spec.privacy.noiseMultiplier: {sigma:g}"
    if plan.epsilon is not None:
        asked = f"spec.privacy.epsilon: {plan.epsilon:g}"
    if guaranteed > _HARDLY_ANY_EPSILON:
        return [
            f"{asked} guarantees ε {guaranteed:.4g}, which keeps hardly anybody from telling who "
            "is in the data; 10 or less is customary. Ask for less epsilon or more noise; a "
            "smaller batchSize or fewer steps let less noise do"
        ]
    if sigma < _HARDLY_ANY_NOISE:
        return [
            f"{asked} adds noise of σ = {sigma:.3g} times maxGradNorm, which hides hardly any "
            "record of a batch: what protects is that few batches hold it; 0.5 or more is "
            "customary. Add noise, with a larger batchSize for the same accuracy"
        ]
    return []


def _delta(delta: float | None, dataset_size: int) -> float:
    """Return δ or its default; δ >= 1/N is refused (rule 9)."""
    if delta is None:
        return draws.default_delta(dataset_size)
    suggestion = f"{draws.default_delta(dataset_size):.3g}"
    if not delta > 0:
        raise PlanError("spec.privacy.delta", delta, f"must be above 0; {suggestion} is customary")
    if delta * dataset_size >= 1:
        raise PlanError(
            "spec.privacy.delta",
            delta,
            f"must be below 1/datasetSize = {1 / dataset_size:.3g}: publishing whole records "
            f"would meet it; {suggestion} is customary",
        )
    return delta


def _required(field: str, value: float | None) -> float:
    if value is None or not (math.isfinite(value) and value > 0):
        raise PlanError(field, value, "must be a finite number above 0")
    return float(value)


def _at_least(field: str, value: int, least: int) -> None:
    if value < least:
        raise PlanError(field, value, f"must be at least {least}")
