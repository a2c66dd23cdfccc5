"""The digits job as runs that the tests make up have it: manifest, UID and plan."""

from __future__ import annotations

from pathlib import Path

from dtjob_accounting import draws
from dtjob_api.ledger import PrivacyPlan

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"
UID = "0a1b2c3d-0000-4000-8000-000000000000"
PLAN = PrivacyPlan(
    mode="DPSGD",
    noise_multiplier=2.2027,
    sample_rate=draws.sample_rate(256, 1437),
    epsilon=8.0,
    epsilon_guaranteed=7.9997,
    delta=1e-5,
    max_grad_norm=1.0,
    batch_size=256,
    dataset_size=1437,
    steps=336,
    replay_reserve_steps=30,
    lease_steps=10,
    accountant_version="dp-accounting 0.6.0",
)
