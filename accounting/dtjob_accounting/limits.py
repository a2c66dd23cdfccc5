"""What the accountants accept, and the words in which they refuse the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtjob_accounting.errors import PlanError

# (noise_multiplier, sample_rate, draws): draws made under one mechanism, as the ledger keeps them.
Segment = tuple[float, float, int]

MIN_NOISE_MULTIPLIER = 0.1
MAX_NOISE_MULTIPLIER = 1e4
MIN_DELTA = 1e-12
MAX_EPSILON = 100.0
MAX_DRAWS = 10**7
# Bound of the expected privacy loss over all draws, q·T / 2σ². Far beyond any meaning of ε, and
# what keeps the arrays of a privacy loss distribution small.
MAX_EXPECTED_LOSS = 200.0


def check_mechanism(
    noise_multiplier: float, sample_rate: float, draws: int, delta: float | None = None
) -> None:
    """Raise PlanError unless ε of this mechanism can be computed.

    Supported are σ in [0.1, 1e4], q in (0, 1], at most 1e7 draws with q·draws/2σ² <= 200, and δ
    in [1e-12, 1).
    """
    if not MIN_NOISE_MULTIPLIER <= noise_multiplier <= MAX_NOISE_MULTIPLIER:
        raise PlanError(
            "spec.privacy.noiseMultiplier",
            noise_multiplier,
            f"must lie between {MIN_NOISE_MULTIPLIER:g} and {MAX_NOISE_MULTIPLIER:g}: below, "
            "nothing is private, above, nothing is learned; 0.5 to 20 is usual",
        )
    _check_draws(sample_rate, draws)
    if delta is not None:
        _check_delta(delta)
    if sample_rate * draws > MAX_EXPECTED_LOSS * 2 * noise_multiplier**2:
        least = math.ceil(100 * math.sqrt(sample_rate * draws / MAX_EXPECTED_LOSS / 2)) / 100
        raise PlanError(
            "spec.privacy.noiseMultiplier",
            noise_multiplier,
            f"is too small for {draws} draws at sample rate {sample_rate:.3g}: epsilon would be "
            f"in the hundreds and mean nothing; use well above {least:g}, the least that is "
            "computed, fewer steps, or a smaller batchSize",
        )


def check_segments(segments: Sequence[Segment], delta: float | None = None) -> None:
    """Raise PlanError unless every segment and δ are supported, the sum of all included."""
    for noise_multiplier, sample_rate, draws in segments:
        check_mechanism(noise_multiplier, sample_rate, draws, delta)
    _check_draws(1.0, sum(draws for _, _, draws in segments))


def check_target(epsilon: float, delta: float, sample_rate: float, draws: int) -> None:
    """Raise PlanError unless (ε, δ) is a target that a σ may be sought for."""
    if not 0 < epsilon <= MAX_EPSILON:
        raise PlanError(
            "spec.privacy.epsilon",
            epsilon,
            f"must lie above 0 and at most {MAX_EPSILON:g}; 1 to 10 is usual",
        )
    _check_delta(delta)
    _check_draws(sample_rate, draws)
    if draws < 1:
        raise PlanError("spec.training.steps", draws, "must be at least 1")


def epsilon_unreachable(epsilon: float, delta: float, sample_rate: float, draws: int) -> PlanError:
    """Return the refusal of an ε that no supported σ reaches."""
    return PlanError(
        "spec.privacy.epsilon",
        epsilon,
        f"can't be reached with delta {delta:g} in {draws} draws (steps and replay reserve) at "
        f"sample rate {sample_rate:.3g}: it would take a noise multiplier above "
        f"{MAX_NOISE_MULTIPLIER:g}; raise epsilon, or lower spec.training.steps or "
        "spec.training.batchSize",
    )


def noise_too_short(noise_multiplier: float, delta: float) -> PlanError:
    """Return the refusal of a σ whose noise ends too soon for δ."""
    return PlanError(
        "spec.privacy.noiseMultiplier",
        noise_multiplier,
        f"is too small for delta {delta:g}: the noise of a computer ends, and a record could show "
        "beyond its end with more than that probability; use more noise, or a larger delta",
    )


def _check_delta(delta: float) -> None:
    if not MIN_DELTA <= delta < 1:
        raise PlanError(
            "spec.privacy.delta",
            delta,
            f"must lie between {MIN_DELTA:g}, below which double precision says nothing, and 1",
        )


def _check_draws(sample_rate: float, draws: int) -> None:
    if not 0 < sample_rate <= 1:
        raise PlanError(
            "spec.training.batchSize",
            f"sample rate {sample_rate}",
            "must be a part of spec.privacy.datasetSize, above 0 and at most all of it",
        )
    if not 0 <= draws <= MAX_DRAWS:
        raise PlanError(
            "spec.training.steps",
            draws,
            f"is the number of draws with spec.privacy.replayReserveSteps, at most {MAX_DRAWS} "
            "in all; use fewer steps",
        )
