"""`spec.training` and `spec.checkpoint`: what the workers do and how long."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dtjob_api.model import FreeForm, Json, Model, rule, rules

MAX_STEPS = 1_000_000_000
"""Bound of every count of steps, draws and records, far inside exact integer arithmetic."""


def positive_count(what: str) -> Json:
    """The rule of an integer field that counts `what` from 1."""
    return rules(
        rule(
            f"self >= 1 && self <= {MAX_STEPS}",
            f"must be a whole number of {what} from 1 to {MAX_STEPS}",
        )
    )


class OptimizerName(StrEnum):
    """Optimizers whose step reads nothing but the noised gradient."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Optimizer(Model):
    """The optimizer of the model's parameters, torch's own of this name."""

    name: OptimizerName
    learning_rate: Annotated[
        float,
        Field(
            json_schema_extra=rules(
                rule("self > 0.0", "must be greater than 0, for example 0.1"),
            )
        ),
    ]


class ScheduleName(StrEnum):
    """Shape of the learning rate over the steps; it reads the step alone."""

    CONSTANT = "Constant"
    LINEAR = "Linear"
    COSINE = "Cosine"


class LearningRateSchedule(Model):
    """The learning rate over the steps: a linear warm-up, then constant or falling to 0."""

    name: ScheduleName
    warmup_steps: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule(
                    f"self >= 0 && self < {MAX_STEPS}",
                    "must be 0 (no warm-up) or a number of steps",
                )
            )
        ),
    ] = 0


class Evaluation(Model):
    """When the task's own evaluation on public data runs."""

    every_steps: Annotated[int, Field(json_schema_extra=positive_count("steps"))]


class Strategy(StrEnum):
    """How the ranks share the work."""

    DDP = "ddp"


class Training(Model):
    """The training run: the task, its length and its optimizer."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.steps) != has(self.epochs)",
                "give exactly one of steps and epochs, the length of the training",
            ),
            rule(
                "!has(self.steps) || !has(self.learningRateSchedule) || "
                "self.learningRateSchedule.warmupSteps < self.steps",
                "must be less than training.steps",
                field=".learningRateSchedule.warmupSteps",
            ),
        )
    )

    entrypoint: Annotated[
        str,
        Field(
            max_length=253,
            json_schema_extra=rules(
                rule(
                    r"self.matches('^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*"
                    r":[A-Za-z_][A-Za-z0-9_]*$')",
                    "must be written package.module:callable, for example "
                    "dtjob_trainer.tasks.digits:task",
                )
            ),
        ),
    ]
    """`package.module:callable` that makes the task."""

    args: FreeForm = Field(default_factory=dict)
    """Arguments of the callable; their meaning is the task's own."""

    steps: Annotated[int, Field(json_schema_extra=positive_count("steps"))] | None = None
    """Optimizer steps; this or `epochs`."""

    epochs: Annotated[int, Field(json_schema_extra=positive_count("epochs"))] | None = None
    """Expected passes over the data: ceil(epochs * datasetSize / batchSize) steps."""

    batch_size: Annotated[int, Field(json_schema_extra=positive_count("examples"))]
    """Expected examples in a step over all workers, public: batchSize / datasetSize is the
    sample rate. It does not change with the number of workers."""

    physical_batch_size: Annotated[
        Literal["auto"] | int,
        Field(
            json_schema_extra=rules(
                rule(
                    f"type(self) == int ? self >= 1 && self <= {MAX_STEPS} "
                    ": string(self) == 'auto'",
                    f"must be auto or a whole number of examples from 1 to {MAX_STEPS}",
                ),
                **{"x-kubernetes-int-or-string": True, "maxLength": 16},
            )
        ),
    ] = "auto"
    """Examples that a process holds at once; it changes memory and speed, never the result."""

    optimizer: Optimizer
    learning_rate_schedule: LearningRateSchedule | None = None
    strategy: Strategy = Strategy.DDP
    evaluation: Evaluation | None = None


class Checkpoint(Model):
    """How often the model becomes durable."""

    every_steps: Annotated[int, Field(json_schema_extra=positive_count("steps"))] | None = None
    """Steps between checkpoints, the length of a lease; by default a hundredth of the
    training, at least 10 and at most 100."""

    keep: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule("self >= 1 && self <= 1000", "must keep between 1 and 1000 checkpoints")
            )
        ),
    ] = 2
    """Checkpoints kept on the volume."""
