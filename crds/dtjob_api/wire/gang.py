"""What supervisors send one another: a hello to the coordinator, and the directive in answer.

Besides, a supervisor sends the coordinator what its ranks print. There is no other traffic between
them. An image is of one version, and so is a gang.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EndKind(StrEnum):
    """How a rank's part in an attempt ended."""

    FINISHED = "Finished"  # in order, as the coordinator directed
    SUCCEEDED = "Succeeded"  # coordinator only: the outcome stands in the ledger
    DRAINED = "Drained"  # coordinator only: closed at a step boundary
    FAILED = "Failed"  # for good: the task or its settings can't work
    HELD = "Held"  # what is charged stays so, and a person must put something right
    SUPERSEDED = "Superseded"  # a newer attempt holds the ledger
    CRASHED = "Crashed"  # died, or lost its peers: a new attempt follows


class End(_Message):
    """The end of one rank of one attempt; `message` holds nothing of the data (Rule 20)."""

    kind: EndKind
    rank: int | None
    reason: Reason
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None


class GpuReading(_Message):
    """One GPU of one worker at one moment; a figure that this GPU does not offer is None."""

    worker: int
    index: int
    uuid: str
    name: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None


class Hello(_Message):
    """What a supervisor reports of itself."""

    position: int
    incarnation: str = Field(max_length=64)
    ready: bool
    attempt: int = 0
    ends: tuple[End, ...] = ()
    drain: bool = False
    gpus: tuple[GpuReading, ...] = ()
    known: int = -1


class LogPart(_Message):
    """What one rank of one attempt printed next: what its worker shows, and no more (Rule 20)."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    position: int = Field(ge=0)
    attempt: int = Field(ge=1)
    rank: int = Field(ge=0)
    number: int = Field(ge=0)
    """Counts the parts of a rank in an attempt: one that comes twice is kept once."""
    dropped: int = Field(default=0, ge=0)
    """Bytes before these for which there was no room while they waited."""
    data: bytes


class Action(StrEnum):
    """What a directive asks for; see `Directive`."""

    WAIT = "Wait"
    RUN = "Run"
    END = "End"
    DONE = "Done"


class Directive(_Message):
    """What every supervisor is to do now.

    WAIT: be ready. RUN: have the ranks of `attempt` running. END: have none running. DONE: have
    none running, and leave (or hold) with `exit_code`. `store_key` opens the way to the store
    for this attempt's ranks; it is nowhere else.
    """

    revision: int = 0
    action: Action = Action.WAIT
    attempt: int = 0
    workers: int = 0
    exit_code: WorkerExit = WorkerExit.OK
    store_key: str = Field(default="", repr=False)
