"""`spec.runPolicy`: what follows when workers fail, and how long a job may take.

Rules are in the manner of `podFailurePolicy` of batch/v1, for a gang:
https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from dtjob_api.model import Json, Model, rule, rules

MOST_RULES = 20
MOST_RESTARTS = 19
"""The ledger keeps 20 attempts: more restarts can't be told from as many."""


def _between(least: int, most: int, what: str) -> Json:
    return rules(rule(f"self >= {least} && self <= {most}", f"must be between {least} and {what}"))


class FailureCause(StrEnum):
    """Why an attempt failed, where no exit code says so."""

    OUT_OF_MEMORY = "OutOfMemory"
    """A rank was killed for want of memory."""
    STALLED = "Stalled"
    """A step took longer than it may."""
    WORKER_LOST = "WorkerLost"
    """A worker stopped answering, or ended without a word: its pod, its node or the network."""


class FailureAction(StrEnum):
    """What follows a failure."""

    FAIL = "Fail"
    """The job fails at once."""
    RESTART_GANG = "RestartGang"
    """Another attempt follows, and the failure counts against `maxRestarts`: as without a rule."""
    IGNORE = "Ignore"
    """Another attempt follows, and the failure counts against nothing."""


ExitCode = Annotated[
    int, Field(json_schema_extra=_between(1, 255, "255; a rank that exits with 0 has not failed"))
]
Signal = Annotated[int, Field(json_schema_extra=_between(1, 64, "64, as kill -l lists them"))]


class FailureRule(Model):
    """What follows failures of some kinds."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                " || ".join(
                    f"(has(self.{field}) && size(self.{field}) > 0)"
                    for field in ("causes", "exitCodes", "signals")
                ),
                "must name a cause, an exit code or a signal",
                field=".causes",
            )
        )
    )

    causes: Annotated[list[FailureCause], Field(max_length=8)] = Field(default_factory=list)
    exit_codes: Annotated[list[ExitCode], Field(max_length=64)] = Field(default_factory=list)
    """With which a rank ended that left no other word."""
    signals: Annotated[list[Signal], Field(max_length=64)] = Field(default_factory=list)
    """By which a rank was ended, unless that was for want of memory."""
    action: FailureAction


Pause = Annotated[int, Field(json_schema_extra=_between(0, 86400, "86400 seconds"))]


class Backoff(Model):
    """The pause before an attempt that follows a failure.

    It doubles with each failure within the hour, and from half of it to all of it is waited, by
    chance, so that jobs that failed together do not come back together.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.maxSeconds >= self.initialSeconds",
                "must be at least initialSeconds",
                field=".maxSeconds",
            )
        )
    )

    initial_seconds: Pause = 1
    max_seconds: Pause = 300


Restarts = Annotated[
    int,
    Field(
        json_schema_extra=rules(
            rule(
                f"self >= 0 && self <= {MOST_RESTARTS}",
                f"must be between 0 (never restart) and {MOST_RESTARTS} restarts within an hour",
            )
        )
    ),
]
StallSeconds = Annotated[
    int,
    Field(json_schema_extra=_between(10, 86400, "86400 seconds, well above the slowest step")),
]


class FailurePolicy(Model):
    """What happens when workers fail."""

    max_restarts: Restarts = 10
    """Restarts of the gang within an hour before the job fails."""

    stall_seconds: StallSeconds = 300
    """A step that takes longer, and three times as long as the attempt's longest, counts as hung,
    and the gang is restarted. The first step of an attempt has four times as long."""

    backoff: Backoff = Backoff()

    rules: Annotated[Sequence[FailureRule], Field(max_length=MOST_RULES)] = Field(
        default_factory=list
    )
    """In order; the first that fits a failure decides. Without one the gang is restarted."""


Deadline = Annotated[
    int,
    Field(json_schema_extra=_between(1, 315360000, "315360000 seconds, which are ten years")),
]
Kept = Annotated[
    int,
    Field(json_schema_extra=_between(0, 315360000, "315360000 seconds, which are ten years")),
]


class NodeLost(Model):
    """What becomes of pods whose node does not answer any more."""

    force_after_seconds: Kept = 120
    """A pod that is to go is deleted by force once its node has not answered for so long, and at
    once where the node is deleted, or tainted as out of service."""


class RunPolicy(FailurePolicy):
    """What happens when workers fail, how long a job may take, and how long it is kept.

    A change takes effect at once.
    """

    active_deadline_seconds: Deadline | None = None
    """A job that has not ended by then fails; counted from its start, or its last resumption."""

    start_deadline_seconds: Deadline | None = None
    """A job whose workers do not train by then fails, and gives back what it holds; counted from
    its start, or its last resumption."""

    hold_after_failure_seconds: Kept = 0
    """For how long the pods of a job that has failed stay for a look; they keep their GPUs."""

    ttl_seconds_after_finished: Kept | None = None
    """The job is deleted so long after its end; its ledger and its claims stay."""

    node_lost: NodeLost = NodeLost()
