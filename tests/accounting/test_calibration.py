"""The search for the least noise: few compositions, and the very digit that is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dtjob_accounting import pld
from dtjob_accounting.calibration import is_within, least_noise
from dtjob_accounting.limits import Segment
from dtjob_accounting.plan import PlanRequest, make_plan
from dtjob_accounting.rounding import round_up


def sought(
    epsilon: Callable[[float], float],
    target: float,
    guess: float = 1.0,
    slope: float = -1.0,
    least: float = 0.1,
) -> tuple[float | None, list[float]]:
    """What is found, and which σ were tried."""
    tried: list[float] = []

    def counted(sigma: float) -> float:
        tried.append(sigma)
        return epsilon(sigma)

    found = least_noise(counted, target, guess=guess, slope=slope, least=least, most=1e4)
    return found, tried


@pytest.mark.rule(9)
@given(st.floats(0.11, 50), st.floats(0.8, 3), st.floats(0.9, 1.1), st.floats(-0.3, 0.3))
@example(20.6875, 3.0, 1.0, 0.0)  # a slope of -1 is taken for three tries beside the root
def test_the_least_digit_is_found_in_few_steps(
    root: float, power: float, off: float, bent: float
) -> None:
    def epsilon(sigma: float) -> float:
        far = math.log(sigma / root)
        return math.exp(-power * far + bent * far**2)

    found, tried = sought(epsilon, 1.0, guess=max(0.1, root * off))
    assert found is not None
    assert is_within(epsilon(found), 1.0)
    assert round_up(root * (1 - 1e-5), 5) <= found <= round_up(root * (1 + 1e-5), 5)
    assert len(tried) <= 6


@pytest.mark.rule(9)
@pytest.mark.parametrize(
    ("epsilon", "found"),
    [
        (lambda sigma: math.inf if sigma < 3 else 9 / sigma, 9.0),
        (lambda sigma: 1.5 if sigma < 7 else 0.5, 7.0),
        (lambda _sigma: 0.0, 0.1),
        (lambda sigma: max(0.0, 3 - sigma), 2.0),
        (lambda _sigma: 2.0, None),
        (lambda sigma: 1e5 / sigma, None),
    ],
    ids=["no noise at all", "a cliff", "none needed", "to nought", "never", "beyond the most"],
)
def test_what_is_not_smooth_is_found_too(
    epsilon: Callable[[float], float], found: float | None
) -> None:
    sigma, tried = sought(epsilon, 1.0)
    assert sigma == (None if found is None else pytest.approx(found, rel=2e-5))
    assert sigma is None or is_within(epsilon(sigma), 1.0)
    assert len(tried) < 60


@pytest.mark.slow
@pytest.mark.rule(9)
@pytest.mark.parametrize(
    ("records", "batch", "steps", "epsilon", "sigma"),
    [
        (1438, 256, 300, 8, 2.1062),
        (60_000, 256, 2340, 3, 0.72854),
        (60_000, 512, 5000, 8, 0.73553),
        (10_000, 100, 1000, 0.5, 2.4163),
        (1_000_000, 4096, 5000, 8, 0.61237),
    ],
)
def test_a_plan_takes_four_compositions_at_most(
    records: int,
    batch: int,
    steps: int,
    epsilon: float,
    sigma: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a bracket they were eight or nine; σ is the one that was found so."""
    composed: list[object] = []
    compose = pld._composed

    def counted(segments: Sequence[Segment]) -> Any:
        composed.append(segments)
        return compose(segments)

    monkeypatch.setattr(pld, "_composed", counted)
    pld._epsilon.cache_clear()
    plan = make_plan(
        PlanRequest(
            dataset_size=records, batch_size=batch, steps=steps, epsilon=epsilon, max_grad_norm=1.0
        ),
        pld,
    )
    assert plan.noise_multiplier == sigma
    assert plan.epsilon_guaranteed is not None
    assert plan.epsilon_guaranteed <= epsilon
    assert len(composed) <= 4
