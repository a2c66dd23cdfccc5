"""What an exception in a rank means for its job, and what may be told of it (Rule 20)."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from dtjob_api.reasons import Reason
from dtjob_trainer.durable import VolumeFull
from dtjob_trainer.gang import EndKind
from dtjob_trainer.ledger import LedgerError, Superseded
from dtjob_trainer.recovery import Refusal
from dtjob_trainer.task import TaskError, shown_in_full, task_code_place

_NO_SUCH_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_HIDDEN = (
    "; its message is not shown because it may hold private data: reproduce it on synthetic "
    "data, or set privacy.telemetry to NotCoveredByEpsilon"
)
_RAISE_INSTEAD = "Raise an exception instead of calling sys.exit"


@dataclass(frozen=True)
class Failures:
    """Judges the exceptions of one rank.

    Attributes
    ----------
    entrypoint
        By which the task's own code is known.
    rank
        Whose exceptions they are.
    shows_private_data
        The job opted out of Rule 20 (``telemetry: NotCoveredByEpsilon``).
    """

    entrypoint: str
    rank: int
    shows_private_data: bool

    def explain(self, error: BaseException, *, private: bool) -> tuple[EndKind, Reason, str]:
        """How the rank ends, the reason, and words that hold nothing of the data (Rule 20).

        Parameters
        ----------
        private
            Private records may be in memory.
        """
        from dtjob_trainer.distributed import ParametersDiverged

        match error:
            case TaskError() if not (private and self._passed_through_task(error)):
                return EndKind.FAILED, Reason(error.reason), error.message
            case Refusal():
                return EndKind.REFUSED, error.reason, error.message
            case Superseded():
                return EndKind.SUPERSEDED, Reason.SUPERSEDED, str(error)
            case LedgerError():
                return EndKind.REFUSED, Reason.LEDGER_UNREADABLE, str(error)
            case VolumeFull():
                return EndKind.REFUSED, Reason.STORAGE_FULL, str(error.strerror)
            case ParametersDiverged():
                # Not retried: who computed wrong once does so again, and steps of it are published.
                return EndKind.FAILED, Reason.REPLICAS_DIVERGED, str(error)
        if not private:
            if isinstance(error, SystemExit):
                said = shown_in_full("the task ended its own process", error, _RAISE_INSTEAD)
                return EndKind.FAILED, Reason.TASK_FAILED, said
            return EndKind.CRASHED, Reason.RANK_FAILED, f"{type(error).__name__}: {error}"
        place = self._passed_through_task(error)
        told = self.told(error)
        if place and isinstance(error, _NO_SUCH_PATH):
            where = (
                "is the data where the task looks for it (--data, storage.data, DTJOB_DATA_DIR)?"
            )
            return EndKind.FAILED, Reason.TASK_FAILED, f"the task raised {told}; {where}"
        if _wants_memory(error):
            return (
                EndKind.CRASHED,
                Reason.RANK_FAILED,
                f"rank {self.rank} ran out of memory: {told}",
            )
        if _in_collective(error):
            told = (
                f"rank {self.rank} lost another rank, or the way to it, while they exchanged sums"
            )
            return EndKind.CRASHED, Reason.RANK_FAILED, told
        if isinstance(error, OSError) or _of_the_device(error):
            return EndKind.CRASHED, Reason.RANK_FAILED, f"rank {self.rank} raised {told}"
        # Another attempt would run into it again, and spend a lease each time.
        remedy = "" if self.shows_private_data else _HIDDEN
        return EndKind.FAILED, Reason.TASK_FAILED, f"training raised {told}{remedy}"

    def _passed_through_task(self, error: BaseException) -> str | None:
        return task_code_place(error, self.entrypoint)

    def told(self, error: BaseException) -> str:
        """All that may be told of an exception once private records may be in memory (Rule 20)."""
        place = self._passed_through_task(error)
        told = f"{type(error).__name__} ({place or 'outside the code of the task'})"
        return f"{told}: {error}" if self.shows_private_data else told


def _wants_memory(error: BaseException) -> bool:
    """Whether another process's end, or another node, may be all that it takes.

    The CPU's allocator raises a RuntimeError that only its message tells from others.
    """
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _of_the_device(error: BaseException) -> bool:
    """Whether the GPU or its driver failed, and not what it was given.

    A device-side assertion is a kernel that refused its input, such as a label out of range; it
    would again.
    """
    import torch

    return isinstance(error, torch.AcceleratorError) and "device-side assert" not in str(error)


def _in_collective(error: BaseException) -> bool:
    """Whether a peer's end, not this rank's own work, may be what raised."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(Path(file).parts[-2:] == ("dtjob_trainer", "distributed.py") for file in files)
