"""Status of a DistributedTrainingJob, written by the operator alone.

Numbers are integers or decimal strings of fixed rounding, so that a status without news is
the same to the byte.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from dtjob_api.model import FreeForm, Model, list_map
from dtjob_api.reasons import ConditionType, Phase

Decimal = Annotated[str, Field(max_length=32)]
"""A number as text with fixed rounding."""

Text = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=63)]
MOST_PREVIOUS_RUNS = 16


class Condition(Model):
    """A metav1.Condition; reasons are `dtjob_api.reasons.Reason`."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    message: Annotated[str, Field(max_length=4096)] = ""
    observed_generation: int | None = None
    last_transition_time: AwareDatetime


class WorkersStatus(Model):
    """The gang as it is."""

    desired: int
    """Worker pods that are asked for."""
    replicas: int | None = None
    """Worker pods that there are."""
    ready: int
    selector: Annotated[str, Field(max_length=512)]
    """Label selector of the worker pods, for autoscalers."""
    generation: int | None = None
    """The ledger's run.generation that the workers follow."""


class ProgressStatus(Model):
    """How far the training is."""

    step: int
    total_steps: int
    percent: int
    epoch: Decimal | None = None
    samples_per_second: Decimal | None = None
    """Expected examples a second, batchSize * steps / time: not those that were really drawn."""
    estimated_completion_time: AwareDatetime | None = None
    heartbeat_time: AwareDatetime | None = None
    evaluation: Annotated[dict[str, Decimal], Field(max_length=32)] = Field(default_factory=dict)
    """The task's public figures on public data."""


class PrivacyStatus(Model):
    """What has been promised and spent, from the ledger; epsilons are rounded up."""

    epsilon_spent: Decimal | None = None
    """Computed by the operator, of `epsilonDraws` draws; no worker's figure is used."""
    epsilon_draws: int | None = None
    """Draws that `epsilonSpent` is of: fewer than are spent while it is computed, more than
    `drawsCharged` where a worker has found more on the volume than the ledger has charged."""
    epsilon_target: Decimal | None = None
    epsilon_guaranteed: Decimal | None = None
    """Bound for all reserved draws, under any stopping rule."""
    delta: Decimal | None = None
    noise_multiplier: Decimal | None = None
    sample_rate: Decimal | None = None
    draws_reserved: int | None = None
    draws_charged: int | None = None
    accountant: Text | None = None


class GpuRange(Model):
    """A percentage over all GPUs of the job."""

    min: int
    mean: int
    max: int


class GpuWorker(Model):
    """The GPUs of one worker, the worst of its values."""

    rank: int
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    temperature_celsius: int | None = None


class GpuStatus(Model):
    """GPU figures, absent on CPUs."""

    count: int
    utilization_percent: GpuRange | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_max_celsius: int | None = None
    power_watts: int | None = None
    worst_rank: int | None = None
    workers: Annotated[list[GpuWorker], Field(max_length=16)] = Field(default_factory=list)
    """The workers with the least utilization, at most 16."""


class CheckpointStatus(Model):
    """The newest durable checkpoint."""

    step: int
    time: AwareDatetime | None = None
    location: Annotated[str, Field(max_length=1024)] | None = None


class DisplayStatus(Model):
    """What the printer columns show; JSONPath can neither join nor round."""

    reason: Text | None = None
    ready: Text | None = None
    progress: Text | None = None
    epsilon: Text | None = None
    gpu: Text | None = None
    memory: Text | None = None
    eta: Text | None = None
    duration: Text | None = None
    """From the start of a job to its end."""


class PreviousRun(Model):
    """How an earlier run of the job ended."""

    rerun: int
    """`spec.rerun` as it was."""
    ledger: Name | None = None
    """The PrivacyLedger of that run, which stays; absent where it was refused before it had one."""
    phase: Phase
    reason: Text | None = None
    steps: int | None = None
    draws_charged: int | None = None
    epsilon_spent: Decimal | None = None
    start_time: AwareDatetime | None = None
    completion_time: AwareDatetime | None = None


class JobStatus(Model):
    """Observed state of a job."""

    phase: Phase | None = None
    rerun: int | None = None
    """The run that this status is of, where it is not the first: `spec.rerun` as it was when that
    began."""
    ledger: Name | None = None
    """The PrivacyLedger of the run. Of a job that is `AlreadyCompleted` it is the one of the job
    that did the work."""
    observed_generation: int | None = None
    conditions: Annotated[
        list[Condition], Field(max_length=32, json_schema_extra=list_map("type"))
    ] = Field(default_factory=list)
    workers: WorkersStatus | None = None
    progress: ProgressStatus | None = None
    privacy: PrivacyStatus | None = None
    gpu: GpuStatus | None = None
    checkpoint: CheckpointStatus | None = None
    display: DisplayStatus | None = None
    attempts: int | None = None
    """Formations of the process group so far."""
    restarts: int | None = None
    """Attempts that followed a failure."""
    start_time: AwareDatetime | None = None
    completion_time: AwareDatetime | None = None
    previous_runs: Annotated[list[PreviousRun], Field(max_length=MOST_PREVIOUS_RUNS)] | None = None
    """Earlier runs, the newest last."""
    result: FreeForm | None = None
    """Of a job that has ended: steps and draws, public figures, digests of the model."""
