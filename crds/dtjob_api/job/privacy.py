"""`spec.privacy`: the guarantee that a job promises."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from dtjob_api.job.training import MAX_STEPS, positive_count
from dtjob_api.model import Model, rule, rules


class PrivacyMode(StrEnum):
    """Whether the training is differentially private."""

    DPSGD = "DPSGD"
    DISABLED = "Disabled"


class PrivacyUnit(StrEnum):
    """What neighbouring datasets differ in: one of these, added or removed."""

    EXAMPLE = "Example"


class Clipping(StrEnum):
    """How per-example gradients are computed."""

    AUTO = "auto"
    HOOKS = "hooks"


class Telemetry(StrEnum):
    """Whether figures that depend on the private data may be shown (Rule 19)."""

    COVERED_BY_EPSILON = "CoveredByEpsilon"
    NOT_COVERED_BY_EPSILON = "NotCoveredByEpsilon"


_DPSGD_FIELDS = ("epsilon", "noiseMultiplier", "delta", "maxGradNorm", "replayReserveSteps")
_NONE_GIVEN = " && ".join(f"!has(self.{field})" for field in _DPSGD_FIELDS)


class Privacy(Model):
    """The differential privacy of the run; adjacency is adding or removing one unit."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.mode == 'Disabled' || has(self.epsilon) != has(self.noiseMultiplier)",
                "give exactly one of epsilon (noise is calibrated to it) and noiseMultiplier "
                "(epsilon follows from it)",
            ),
            rule(
                "self.mode == 'Disabled' || has(self.maxGradNorm)",
                "give the norm to which each example's gradient is clipped, for example 1.0",
                field=".maxGradNorm",
                reason="FieldValueRequired",
            ),
            rule(
                f"self.mode != 'Disabled' || ({_NONE_GIVEN})",
                "mode Disabled trains without privacy: remove epsilon, noiseMultiplier, delta, "
                "maxGradNorm and replayReserveSteps, or remove the mode",
            ),
            rule(
                "!has(self.delta) || self.datasetSize < 1 || "
                "self.delta < 1.0 / double(self.datasetSize)",
                "must be less than 1/datasetSize, or publishing a random record whole would "
                "count as private; leave it out for min(1e-5, 1/(10 datasetSize))",
                field=".delta",
            ),
        )
    )

    mode: PrivacyMode = PrivacyMode.DPSGD
    """DPSGD, or Disabled to train without privacy."""

    epsilon: (
        Annotated[
            float,
            Field(
                json_schema_extra=rules(
                    rule(
                        "self > 0.0 && self <= 100.0",
                        "must be greater than 0 and at most 100; 1 to 10 is usual",
                    )
                )
            ),
        ]
        | None
    ) = None
    """Target that the whole run, replays included, stays within."""

    noise_multiplier: (
        Annotated[
            float,
            Field(
                json_schema_extra=rules(
                    rule(
                        "self >= 0.1 && self <= 10000.0",
                        "must lie between 0.1 and 10000; 0.5 to 20 is usual: the noise's standard "
                        "deviation divided by maxGradNorm",
                    )
                )
            ),
        ]
        | None
    ) = None
    """Standard deviation of the noise over `maxGradNorm`, instead of a target."""

    delta: (
        Annotated[
            float,
            Field(json_schema_extra=rules(rule("self >= 1e-12", "must be at least 1e-12"))),
        ]
        | None
    ) = None
    """Probability of the guarantee's failure; by default min(1e-5, 1/(10 datasetSize))."""

    max_grad_norm: (
        Annotated[
            float,
            Field(
                json_schema_extra=rules(
                    rule(
                        "self >= 1e-12 && self <= 1e12",
                        "must lie between 1e-12 and 1e12, where fp32 holds gradients of that "
                        "norm; for example 1.0",
                    ),
                )
            ),
        ]
        | None
    ) = None
    """L2 norm to which each example's gradient is clipped."""

    dataset_size: Annotated[
        int,
        Field(json_schema_extra=positive_count("records")),
    ]
    """Nominal number of records, public; the real number is private and need not equal it."""

    unit: PrivacyUnit = PrivacyUnit.EXAMPLE
    """Whose presence is hidden."""

    clipping: Clipping = Clipping.AUTO
    """How per-example gradients are computed."""

    replay_reserve_steps: (
        Annotated[
            int,
            Field(
                json_schema_extra=rules(
                    rule(
                        f"self >= 0 && self <= {MAX_STEPS}",
                        "must be 0 (no step may be lost to a crash) or a number of steps",
                    )
                )
            ),
        ]
        | None
    ) = None
    """Draws paid for beyond the steps, spent when a crash loses leased steps; by default three
    leases."""

    telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON
    """NotCoveredByEpsilon keeps what the task prints and names bad records, which epsilon does not
    cover."""
