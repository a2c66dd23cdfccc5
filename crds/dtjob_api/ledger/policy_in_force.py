"""`spec.runPolicy` of a ledger: the job's own, bounded as all of a ledger is, by its schema."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field

from dtjob_api.job.run_policy import (
    MOST_RESTARTS,
    MOST_RULES,
    Backoff,
    FailurePolicy,
    FailureRule,
)

# Whoever writes a job is told in words what is wrong with it; a ledger is written by the operator.
_NO_WORDS = ConfigDict(json_schema_extra={})

Code = Annotated[int, Field(ge=1, le=255)]
Seconds = Annotated[int, Field(ge=0, le=86400)]


class RuleInForce(FailureRule):
    """What follows failures of some kinds."""

    model_config = _NO_WORDS

    exit_codes: Annotated[list[Code], Field(max_length=64)] = Field(default_factory=list)
    signals: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(max_length=64)] = Field(
        default_factory=list
    )


class BackoffInForce(Backoff):
    """The pause before an attempt that follows a failure."""

    model_config = _NO_WORDS

    initial_seconds: Seconds = 1
    max_seconds: Seconds = 300


class PolicyInForce(FailurePolicy):
    """By which the coordinator goes from the next failure on."""

    max_restarts: Annotated[int, Field(ge=0, le=MOST_RESTARTS)] = 10
    stall_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    backoff: BackoffInForce = BackoffInForce()
    rules: Annotated[list[RuleInForce], Field(max_length=MOST_RULES)] = Field(default_factory=list)

    @classmethod
    def of(cls, policy: FailurePolicy) -> Self:
        """The run policy of a job as its ledger has it, without what is the operator's alone."""
        return cls.model_validate(policy.model_dump(include=set(cls.model_fields)))
