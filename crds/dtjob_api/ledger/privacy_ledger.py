"""PrivacyLedger: what a job may spend, what it has spent, and its only channel to the workers.

The operator writes `spec`, the coordinator writes `status`. What is here bounds each field; the
rules in `dtjob_api.ledger.ledger_rules` bind every writer: what is charged is never given back.
Draws are numbered from 0, and so are steps.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from dtjob_api.job.privacy import Clipping, PrivacyMode, PrivacyUnit, Telemetry
from dtjob_api.job.training import MAX_STEPS
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.model import API_VERSION, FreeForm, Image, Model, ObjectMeta
from dtjob_api.reasons import Reason

MAX_NUMBER = 2**31
"""Bound of attempts and generations: one each second for 68 years."""
MAX_DRAWS = 2 * MAX_STEPS
"""Bound of draws: all steps, and as many in reserve. No sum or comparison of the rules comes near
the ends of 64 bits, or of the integers that a double holds."""
MAX_SEGMENTS = 64
MAX_ATTEMPTS_KEPT = 20
MAX_RESULT_BYTES = 4096
MAX_MESSAGE_LENGTH = 1024
MAX_VERSION_LENGTH = 64
MAX_PACKAGES = 32
MAX_PACKAGE_LENGTH = 128
UNKNOWN_IMAGE = "unknown"
"""The image of draws of which nobody knows it."""
NO_IMAGE = "none"
"""The image of draws that processes of a machine made, without a container."""

Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
NumberOrZero = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Draws = Annotated[int, Field(ge=0, le=MAX_DRAWS)]
Steps = Annotated[int, Field(ge=0, le=MAX_STEPS)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Code = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Message = Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH)]
ReasonText = Annotated[str, Field(max_length=128)]
UID = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=63)]
Digest = Annotated[str, Field(max_length=71)]
"""A SHA-256, in hexadecimal after `sha256:`."""
Version = Annotated[str, Field(min_length=1, max_length=MAX_VERSION_LENGTH)]
Package = Annotated[str, Field(min_length=1, max_length=MAX_PACKAGE_LENGTH)]
"""Name and version of an installed package, as pip writes them: `timm==1.0.20`."""


class OrderState(StrEnum):
    """What the operator asks of the workers."""

    RUN = "Run"
    DRAIN = "Drain"
    STOP = "Stop"


class Order(Model):
    """The operator's only message to the workers."""

    generation: Number
    """Rises with each order."""
    workers: PositiveCount
    """World of this generation, in worker pods."""
    state: OrderState = OrderState.RUN
    time: AwareDatetime | None = None
    """When it was given."""
    instead_of: PositiveCount | None = None
    """Workers of the order before, which could not start with so many."""


class PrivacyPlan(Model):
    """The frozen privacy plan of a job (Rule 9).

    With mode Disabled the privacy parameters are absent; the counts are there all the same.
    """

    mode: PrivacyMode
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    sample_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The smallest float that is not below batchSize / datasetSize."""
    epsilon: Annotated[float, Field(gt=0)] | None = None
    """The target, absent where the noise multiplier was given."""
    epsilon_guaranteed: Annotated[float, Field(ge=0)] | None = None
    """Epsilon of all steps + replayReserveSteps draws, rounded up."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    batch_size: PositiveCount
    """B, the expected number of examples in a draw."""
    dataset_size: PositiveCount
    """N, the nominal number of records."""
    steps: PositiveCount
    """T."""
    replay_reserve_steps: Steps
    """R: draws beyond the steps."""
    lease_steps: PositiveCount
    """n: draws of a lease and steps between checkpoints."""
    unit: PrivacyUnit = PrivacyUnit.EXAMPLE
    adjacency: Literal["AddRemove"] = "AddRemove"
    sampler: Literal["Poisson"] = "Poisson"
    clipping: Clipping = Clipping.AUTO
    accountant: Literal["PLD"] = "PLD"
    accountant_version: Annotated[str, Field(max_length=64)]
    telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON
    """Whether the workers' logs show more than epsilon covers."""


class Content(Model):
    """What distinguishes the work of one job from that of another: `dtjob_api.content`."""

    format: Number
    """What is hashed, and how. Digests of different formats say nothing of one another."""
    sha256: Annotated[str, Field(min_length=64, max_length=64)]


class LedgerSpec(Model):
    """What the operator grants and asks for."""

    job_uid: UID
    job_name: Name
    stateful_set: Name
    """The coordinator's StatefulSet, whose one pod may write the status."""
    rerun: NumberOrZero = 0
    """`spec.rerun` of the job's run."""
    content: Content | None = None
    """Of the job, absent in a ledger of an older version."""
    plan: PrivacyPlan
    reserved_draws: Draws
    """Draws that may be charged in all; lowering it to what is charged closes the ledger."""
    run: Order
    run_policy: PolicyInForce = PolicyInForce()
    """The job's as it is now: the coordinator goes by it from the next failure on."""


class Lease(Model):
    """Permission to execute draws `from_draw <= c < to_draw`, already charged (Rule 10)."""

    attempt: Number
    from_draw: Draws
    to_draw: Draws
    """The first draw that is not leased."""
    from_step: Steps
    """Step of the model at which the lease begins."""
    closed_at: Draws | None = None
    """After an orderly stop: the first draw of the lease that was not used. The next lease may
    begin there; a lease that is not closed is spent whole."""


class Formats(Model):
    """How draws get their numbers from keys: each changes with the code that makes them."""

    sampling: Number
    """`SAMPLING_FORMAT` of the trainer (Rules 3 and 8)."""
    noise: Number
    """`NOISE_FORMAT` of the trainer (Rule 7)."""


class Versions(Model):
    """What was installed where draws were made."""

    python: Version
    dtjob: Version
    torch: Version
    opacus: Version
    numpy: Version
    packages: Annotated[list[Package], Field(max_length=MAX_PACKAGES)] = Field(default_factory=list)
    """All others that the task's own code imports, by name; of more than there is room for the
    first."""


class Provenance(Model):
    """By what draws were made (Rule 14).

    What is absent, but for the image, is not known: in a ledger that was raised before its first
    lease, and where segments had to be joined.
    """

    image: Image
    """`unknown` where it is not known, `none` where a machine's own processes made the draws."""
    formats: Formats | None = None
    versions: Versions | None = None
    task_digest: Digest | None = None
    """Of the task as it was tried before its draws: entrypoint, arguments, sources and environment,
    with image, all that is installed, the rows of a micro-batch and the device. It has a secret
    key of the checkpoint volume in it, so that nobody guesses variables from it: digests can be
    compared within one job alone. Absent where sources or the key can't be read."""


class Segment(Provenance):
    """Draws charged at one noise multiplier and sample rate, of one provenance (Rule 14)."""

    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    sample_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    draws: Draws

    @property
    def provenance(self) -> Provenance:
        """By what its draws were made."""
        return Provenance(**{name: getattr(self, name) for name in Provenance.model_fields})


class CheckpointRecord(Model):
    """The newest durable checkpoint; there is no other pointer to it."""

    step: Steps
    """Steps that the model has taken."""
    charged: Draws
    """Draws charged when it was published."""
    attempt: Number
    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Relative to the checkpoint volume."""
    sha256: Annotated[str, Field(min_length=64, max_length=64)]
    time: AwareDatetime


class OutcomeState(StrEnum):
    """How a job ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Outcome(Model):
    """The end of the job, written once."""

    state: OutcomeState
    reason: Reason
    message: Message = ""
    time: AwareDatetime
    result: FreeForm | None = None
    """Public figures, epsilon and the model's digest, at most 4 KiB as JSON."""


class Hold(Model):
    """Settings under which no attempt begins by itself.

    A person changes one of them, or raises the ledger (`restored`), and lets the job go on.
    """

    generation: Number
    """`spec.run.generation`."""
    stall_seconds: Number
    """`spec.runPolicy.stallSeconds`."""


class AttemptRecord(Model):
    """One formation of the process group and how it ended; without private data (Rule 20)."""

    attempt: Number
    generation: Number | None = None
    """Of the order that it ran under."""
    workers: PositiveCount | None = None
    """Its world, in worker pods."""
    start: AwareDatetime
    end: AwareDatetime | None = None
    rank: NumberOrZero | None = None
    """The rank that failed first."""
    exit_code: Code | None = None
    signal: Code | None = None
    reason: ReasonText | None = None
    message: Message | None = None
    ignored: bool | None = None
    """Set where a rule of `spec.runPolicy` has it count against nothing."""
    hold: Hold | None = None
    """Set where it stalled, or was refused with a lease, and another attempt might lose a lease to
    find the same: it brought no new checkpoint, or the reserve covers no other lost lease."""


class VolumeRecord(Model):
    """What the checkpoint volume vouches for, where that is more than the ledger says (Rule 11)."""

    attempt: Number
    """The newest attempt that left something there."""
    leased: NumberOrZero = 0
    """The newest attempt whose journal holds a lease."""
    charged: Draws
    """Draws that were charged at least: the end of the last lease in a journal. All that are
    reserved, where a journal can't be read that may hold a lease unknown to the ledger."""
    checkpoint: CheckpointRecord | None = None
    """The newest checkpoint there that is whole."""


class LedgerStatus(Model):
    """What the coordinator has done."""

    attempt: NumberOrZero = 0
    """The newest attempt; older ones can neither lease nor publish."""
    charged: Draws = 0
    """Draws leased over all attempts."""
    lease: Lease | None = None
    """The newest lease."""
    segments: Annotated[list[Segment], Field(max_length=MAX_SEGMENTS)] = Field(default_factory=list)
    initial_model_digest: Digest | None = None
    """SHA-256 of the weights that training began with (Rule 5)."""
    checkpoint: CheckpointRecord | None = None
    volume: VolumeRecord | None = None
    """Set where the ledger was found behind its volume; `dtjob ledger restore` goes by it."""
    restored: Number | None = None
    """The attempt at which the ledger was last raised to its volume: what was leased up to it is
    charged whole, whatever of it `lease` has as unused (Rule 11)."""
    drained: NumberOrZero | None = None
    """The newest run.generation that has drained."""
    outcome: Outcome | None = None
    attempts: Annotated[list[AttemptRecord], Field(max_length=MAX_ATTEMPTS_KEPT)] = Field(
        default_factory=list
    )
    """The newest attempts, in order. In a full list the oldest that was no failure makes room for
    the next one, and the oldest of all where each was one: `runPolicy.maxRestarts` counts them."""


class PrivacyLedger(Model):
    """The ledger of one job."""

    api_version: Literal["dtjob.dev/v1alpha1"] = API_VERSION
    kind: Literal["PrivacyLedger"] = "PrivacyLedger"
    metadata: ObjectMeta
    spec: LedgerSpec
    status: LedgerStatus = Field(default_factory=LedgerStatus)

    @classmethod
    def from_dict(cls, manifest: dict[str, Any]) -> PrivacyLedger:
        """The ledger of an object that the API server has stored."""
        return cls.model_validate(manifest)

    @classmethod
    def from_json(cls, text: str | bytes) -> PrivacyLedger:
        """The ledger of a file, whose values have the types that the API server asks for."""
        return cls.model_validate_json(text, strict=True)
