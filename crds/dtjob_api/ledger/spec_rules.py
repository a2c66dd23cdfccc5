"""What no writer can do to a ledger's spec: what was charged was charged under it (Rules 9, 17)."""

from __future__ import annotations

from dtjob_api.job.privacy import PrivacyMode
from dtjob_api.ledger.ledger_rule import LedgerRule, spec_changes
from dtjob_api.ledger.privacy_ledger import LedgerSpec


def _is_complete(spec: LedgerSpec) -> bool:
    plan = spec.plan
    return plan.mode is PrivacyMode.DISABLED or None not in (
        plan.noise_multiplier,
        plan.sample_rate,
        plan.delta,
        plan.max_grad_norm,
    )


SPEC_RULES: tuple[LedgerRule, ...] = (
    LedgerRule(
        "reserve-is-of-the-plan",
        9,
        "spec.reservedDraws",
        "self.reservedDraws <= self.plan.steps + self.plan.replayReserveSteps",
        lambda _, new: (
            new.spec.reserved_draws <= new.spec.plan.steps + new.spec.plan.replay_reserve_steps
        ),
        "must not exceed plan.steps + plan.replayReserveSteps: the noise is calibrated "
        "for no more draws",
        within="spec",
    ),
    LedgerRule(
        "plan-is-complete",
        9,
        "spec.plan",
        "self.plan.mode == 'Disabled' || (has(self.plan.noiseMultiplier) && "
        "has(self.plan.sampleRate) && has(self.plan.delta) && has(self.plan.maxGradNorm))",
        lambda _, new: _is_complete(new.spec),
        "noiseMultiplier, sampleRate, delta and maxGradNorm are required with mode DPSGD",
        within="spec",
    ),
    *(
        LedgerRule(
            name,
            contract,
            f"spec.{field}",
            f"self.spec.{field} == oldSelf.spec.{field}",
            permits,
            f"spec.{field} never changes: what was charged was charged under it",
        )
        for name, contract, field, permits in (
            ("job-uid-stays", 14, "jobUID", spec_changes(lambda o, n: n.job_uid == o.job_uid)),
            ("job-name-stays", 14, "jobName", spec_changes(lambda o, n: n.job_name == o.job_name)),
            (
                "stateful-set-stays",
                18,
                "statefulSet",
                spec_changes(lambda o, n: n.stateful_set == o.stateful_set),
            ),
            ("plan-stays", 9, "plan", spec_changes(lambda o, n: n.plan == o.plan)),
            ("rerun-stays", 14, "rerun", spec_changes(lambda o, n: n.rerun == o.rerun)),
        )
    ),
    LedgerRule(
        "content-stays",
        14,
        "spec.content",
        "has(self.spec.content) == has(oldSelf.spec.content) && "
        "(!has(self.spec.content) || self.spec.content == oldSelf.spec.content)",
        spec_changes(lambda old, new: new.content == old.content),
        "spec.content never changes: by it another job knows that the work is done",
    ),
    LedgerRule(
        "reserve-never-grows",
        17,
        "spec.reservedDraws",
        "self.spec.reservedDraws <= oldSelf.spec.reservedDraws",
        spec_changes(lambda old, new: new.reserved_draws <= old.reserved_draws),
        "spec.reservedDraws never grows: the rest may have been given back",
    ),
    LedgerRule(
        "generation-never-decreases",
        2,
        "spec.run.generation",
        "self.spec.run.generation >= oldSelf.spec.run.generation",
        spec_changes(lambda old, new: new.run.generation >= old.run.generation),
        "spec.run.generation never decreases",
    ),
    LedgerRule(
        "order-changes-with-the-generation",
        2,
        "spec.run",
        "self.spec.run.generation != oldSelf.spec.run.generation || "
        "self.spec.run == oldSelf.spec.run",
        spec_changes(
            lambda old, new: new.run.generation != old.run.generation or new.run == old.run
        ),
        "spec.run changes only with a new generation",
    ),
)
