"""What a stand-in's ranks do: a pace, and faults where a test wants them.

The script is the job's own `training.args`, so that an ordinary manifest drives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from dtjob_api.model import Model
from dtjob_api.reasons import Reason
from dtjob_trainer.task import ArraySpec, Task

ENTRYPOINT = "standin.script:task"
"""What `training.entrypoint` names; no other image resolves it."""

Seconds = Annotated[float, Field(ge=0)]


class Deed(StrEnum):
    """What happens at a fault."""

    SIGNAL = "Signal"  # the rank is ended by signal `number`
    EXIT = "Exit"  # the rank exits with code `number`, without a word
    MEMORY = "Memory"  # the rank runs out of memory, and says so
    HANG = "Hang"  # nothing more is heard of the rank
    HOLD = "Hold"  # the step lasts until rank 0 is told to stop
    RAISE = "Raise"  # the rank raises what a new attempt may cure
    FAIL = "Fail"  # the job can't work: `reason` and `message`
    REFUSE = "Refuse"  # training is refused: `reason` and `message`
    LEAVE = "Leave"  # the whole worker dies with exit code `number`
    GARBLE = "Garble"  # until the next attempt the worker's report is none
    LOSE_VOLUME = "LoseVolume"  # the checkpoint volume is emptied, and the rank killed


class Fault(Model):
    """One fault of one rank."""

    do: Deed
    rank: Annotated[int, Field(ge=0)] = 0
    attempt: Annotated[int, Field(ge=1)] | None = 1
    """None: in every attempt."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Before this step; None: before training begins."""
    number: int = 9
    reason: Reason = Reason.TASK_INVALID
    message: str = "as the script says"


class Script(Model):
    """The whole play; the same for all workers of a job."""

    seconds_per_step: Seconds = 0.02
    start_seconds: Seconds = 0
    """Before a worker is ready, as the real one imports torch."""
    drain_seconds: Seconds = 0
    """Between an order to stop and the end of the step."""
    evaluation: dict[str, float] = Field(default_factory=dict)
    """The figures of every evaluation; without any the task has none."""
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Script:
        """The script in a job's `training.args`; raises ValueError where there is none."""
        return cls.model_validate(args)

    def at(self, rank: int, attempt: int, step: int | None) -> list[Fault]:
        """The faults that a rank meets there."""
        return [
            fault
            for fault in self.faults
            if (fault.rank, fault.step) == (rank, step) and fault.attempt in (None, attempt)
        ]


def task(args: Mapping[str, Any]) -> Task:
    """A task whose arguments are a good script, and that nobody can train."""
    Script.of(args)

    def never(*_: Any) -> Any:
        raise RuntimeError("a stand-in has no model and no data")

    spec = {"nothing": ArraySpec((), "float32", 0, 1)}
    return Task(model=never, dataset=never, example_spec=spec, losses=never)
