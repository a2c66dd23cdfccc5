"""Plans: fixed at admission, within their target, and refused in words that help."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from dtjob_accounting import draws, plan, pld, rdp
from dtjob_accounting.plan import Plan, PlanError, PlanRequest, make_plan

DIGITS: dict[str, Any] = {
    "dataset_size": 1437,
    "batch_size": 256,
    "steps": 336,
    "delta": 1e-5,
    "max_grad_norm": 1.0,
}


def made(**request: Any) -> Plan:
    return make_plan(PlanRequest(**request), pld)


@pytest.mark.rule(9)
def test_the_digits_plan() -> None:
    digits = made(epsilon=8, **DIGITS)
    assert digits.noise_multiplier == pytest.approx(2.2035, abs=5e-4)
    assert digits.sample_rate == draws.sample_rate(256, 1437)
    assert (digits.steps, digits.lease_steps, digits.replay_reserve_steps) == (336, 10, 30)
    assert digits.reserved_draws == 366
    assert digits.epsilon == 8
    assert digits.epsilon_guaranteed is not None
    assert 7.99 < digits.epsilon_guaranteed <= 8
    if digits.accountant_version == "dp-accounting 0.6.0":
        assert (digits.noise_multiplier, digits.epsilon_guaranteed) == (2.2035, 7.99989)
    assert digits.accountant_version.startswith("dp-accounting ")
    assert plan.warnings(digits) == []
    json.dumps(dataclasses.asdict(digits), allow_nan=False)


@pytest.mark.slow
@pytest.mark.rule(9)
def test_sigma_and_epsilon_cover_the_reserve() -> None:
    """Not only the T steps: crashes replay up to R more draws."""
    digits = made(noise_multiplier=2.203, **DIGITS)
    assert digits.epsilon is None
    assert digits.epsilon_guaranteed == pld.epsilon(2.203, draws.sample_rate(256, 1437), 366, 1e-5)
    frugal = made(epsilon=8, replay_reserve_steps=0, **DIGITS)
    generous = made(epsilon=8, replay_reserve_steps=300, **DIGITS)
    assert frugal.noise_multiplier is not None
    assert generous.noise_multiplier is not None
    assert frugal.noise_multiplier < 2.2 < generous.noise_multiplier


def test_defaults_follow_rule_9() -> None:
    large = made(
        dataset_size=10**6,
        batch_size=1000,
        steps=5000,
        noise_multiplier=1.0,
        max_grad_norm=0.5,
    )
    assert large.delta == 1e-7
    assert (large.lease_steps, large.replay_reserve_steps) == (50, 150)


def test_a_lease_never_exceeds_the_job() -> None:
    short = made(noise_multiplier=2.0, every_steps=1000, **DIGITS | {"steps": 7})
    assert (short.lease_steps, short.replay_reserve_steps) == (7, 21)


def test_without_privacy_the_draws_stay_the_same() -> None:
    private = made(noise_multiplier=2.203, **DIGITS)
    disabled = made(mode="Disabled", epsilon=8, **DIGITS)
    assert disabled.noise_multiplier is None
    assert disabled.epsilon is None
    assert disabled.epsilon_guaranteed is None
    assert disabled.delta is None
    assert disabled.max_grad_norm is None
    for field in ("sample_rate", "batch_size", "dataset_size", "steps", "lease_steps"):
        assert getattr(disabled, field) == getattr(private, field)


@pytest.mark.parametrize(
    ("sigma", "epsilon", "guaranteed", "field", "says"),
    [
        (0.73, 50.0, 49.9, "spec.privacy.epsilon: 50 ", "ε 49.9, "),
        (0.6, None, 77.16, "spec.privacy.noiseMultiplier: 0.6 ", "10 or less is customary"),
        (0.25, None, 8.7, "spec.privacy.noiseMultiplier: 0.25 ", "0.5 or more is customary"),
        (0.26, 12.0, 11.9, "spec.privacy.epsilon: 12 ", "σ = 0.26 "),
        (0.2, None, 30.0, "spec.privacy.noiseMultiplier: 0.2 ", "10 or less is customary"),
    ],
)
def test_a_plan_that_protects_hardly_anybody_is_warned_of(
    sigma: float, epsilon: float | None, guaranteed: float, field: str, says: str
) -> None:
    (warning,) = plan.warnings(planned(sigma, epsilon, guaranteed))
    assert warning.startswith(field)
    assert says in warning


@pytest.mark.parametrize(
    ("sigma", "epsilon", "guaranteed"), [(1.19, 20.0, 20.0), (0.3, None, 12.0), (2.2, 8.0, 7.99)]
)
def test_a_plan_as_practitioners_make_it_is_not_warned_of(
    sigma: float, epsilon: float | None, guaranteed: float
) -> None:
    assert plan.warnings(planned(sigma, epsilon, guaranteed)) == []


def planned(sigma: float, epsilon: float | None, guaranteed: float) -> plan.Plan:
    """The digits plan with other figures, which are not computed here."""
    return dataclasses.replace(
        made(mode="Disabled", **DIGITS),
        mode="DPSGD",
        delta=1e-5,
        noise_multiplier=sigma,
        epsilon=epsilon,
        epsilon_guaranteed=guaranteed,
    )


def test_warnings_name_the_field() -> None:
    loose = made(noise_multiplier=2.203, replay_reserve_steps=5, **DIGITS | {"delta": 1e-4})
    about_delta, about_reserve = plan.warnings(loose)
    assert about_delta.startswith("spec.privacy.delta: 0.0001 exceeds 1/(10·datasetSize)")
    assert about_reserve.startswith("spec.privacy.replayReserveSteps: 5 ")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"epsilon": 8, "noise_multiplier": 1.0}, "spec.privacy.epsilon", "either"),
        ({}, "spec.privacy.epsilon", "either"),
        ({"epsilon": 0}, "spec.privacy.epsilon", "above 0"),
        ({"epsilon": float("inf")}, "spec.privacy.epsilon", "finite"),
        ({"epsilon": 1e4}, "spec.privacy.epsilon", "at most 100"),
        ({"epsilon": 1e-9, "batch_size": 1437}, "spec.privacy.epsilon", "raise epsilon"),
        ({"noise_multiplier": 0.01}, "spec.privacy.noiseMultiplier", "0.5 to 20"),
        ({"noise_multiplier": float("nan")}, "spec.privacy.noiseMultiplier", "finite"),
        (
            {"noise_multiplier": 0.5, "batch_size": 1437, "steps": 10_000},
            "spec.privacy.noiseMultiplier",
            "use well above 5.08, the least that is computed",
        ),
        ({"epsilon": 8, "delta": 1 / 1437}, "spec.privacy.delta", "below 1/datasetSize"),
        ({"epsilon": 8, "delta": 0.0}, "spec.privacy.delta", "1e-05 is customary"),
        ({"epsilon": 8, "delta": 1e-15}, "spec.privacy.delta", "1e-12"),
        ({"epsilon": 8, "max_grad_norm": None}, "spec.privacy.maxGradNorm", "above 0"),
        ({"epsilon": 8, "max_grad_norm": -1.0}, "spec.privacy.maxGradNorm", "above 0"),
        ({"epsilon": 8, "batch_size": 1438}, "spec.training.batchSize", "at most"),
        ({"epsilon": 8, "batch_size": 0}, "spec.training.batchSize", "at least 1"),
        ({"epsilon": 8, "steps": 0}, "spec.training.steps", "at least 1"),
        (
            {"epsilon": 8, "steps": 10**9},
            "spec.training.steps",
            "at most 10000000",
        ),
        ({"epsilon": 8, "dataset_size": 0}, "spec.privacy.datasetSize", "at least 1"),
        ({"epsilon": 8, "every_steps": 0}, "spec.checkpoint.everySteps", "at least 1"),
        (
            {"epsilon": 8, "replay_reserve_steps": -1},
            "spec.privacy.replayReserveSteps",
            "at least 0",
        ),
        ({"epsilon": 8, "mode": "Off"}, "spec.privacy.mode", "Disabled"),
    ],
)
def test_impossible_plans_name_field_value_and_remedy(
    change: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(PlanError) as refusal:
        made(**DIGITS | change)
    assert refusal.value.field == field
    assert says in refusal.value.remedy
    assert str(refusal.value).startswith(f"{field}: Invalid value: {refusal.value.value}: ")


def test_the_light_modules_import_neither_torch_nor_dp_accounting_nor_scipy() -> None:
    """Operator and CLI stay small and quick: the libraries load in the helper process."""
    script = (
        "import sys, dtjob_accounting.plan, dtjob_accounting.process, dtjob_accounting.rdp, "
        "dtjob_accounting.report_figures; "
        "print([m for m in ('torch', 'numpy', 'scipy', 'dp_accounting', 'kopf', 'dtjob_api') "
        "if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert seen.stdout.strip() == b"[]"


def test_the_renyi_sigma_is_only_the_bracket() -> None:
    """What PLD saves over RDP is noise that the model is spared: here 6 %."""
    rate = draws.sample_rate(256, 1437)
    assert rdp.noise_multiplier(8, 1e-5, rate, 366) > 2.203 * 1.05
