"""What the ledger of a digits job promises, where a test holds which draws are charged."""

from __future__ import annotations

from dtjob_api.ledger import LedgerSpec, PrivacyPlan, Run


def digits(
    name: str, *, steps: int, lease_steps: int, reserve: int, workers: int = 1
) -> LedgerSpec:
    """The spec of a ledger whose plan has a fixed noise multiplier: none is calibrated."""
    plan = PrivacyPlan(
        mode="DPSGD",
        noise_multiplier=2.0,
        sample_rate=0.18,
        delta=1e-5,
        epsilon_guaranteed=9.0,
        max_grad_norm=1.0,
        batch_size=256,
        dataset_size=1437,
        steps=steps,
        replay_reserve_steps=reserve,
        lease_steps=lease_steps,
        accountant_version="test",
    )
    return LedgerSpec(
        job_uid="5ac7f6f2-1111-4222-8333-444455556666",
        job_name=name,
        stateful_set=f"{name}-5ac7f6f2",
        plan=plan,
        reserved_draws=steps + reserve,
        run=Run(generation=1, workers=workers),
    )
