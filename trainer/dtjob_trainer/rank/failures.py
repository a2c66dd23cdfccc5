"""What an exception in a rank means for its job, and what may be shown of it (Rule 20)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_trainer.ledger.backend import LedgerError, Superseded
from dtjob_trainer.ledger.durable import VolumeFull, VolumeUnusable
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.task import (
    CORRECT_THE_TASK,
    TaskError,
    raised_by_dtjob,
    shown_in_full,
    task_code_place,
    task_traceback,
    where_in_task,
)
from dtjob_trainer.usercode import data_place
from dtjob_trainer.usercode.passing import NO_SUCH_PATH, may_pass, wants_memory, was_not_there

_HIDDEN = (
    "; its message is not shown because it may hold private data: reproduce it on synthetic "
    "data, or set privacy.telemetry to NotCoveredByEpsilon, which keeps it in the worker's log"
)
_LOGGED = "; its message, which may hold private data, is in the worker's log alone"
_LESS_MEMORY = (
    ". What takes less, in a new job: a smaller spec.training.physicalBatchSize, which changes "
    "memory and speed only, a smaller model, fewer processes in a worker; or give it more: "
    "spec.workers.resources.limits.memory, a GPU that has more, and on one machine fewer --workers "
    "or a higher ulimit -v"
)
_RAISE_INSTEAD = "Raise an exception instead of calling sys.exit"


class Phase(Enum):
    """What a rank is at, and so what an exception of it means."""

    OURS = auto()
    """Ledger, checkpoint, other ranks: nothing of the task runs."""
    TRIED = auto()
    """The task is imported and tried on synthetic data."""
    OPENING = auto()
    """The task opens its data: private records may be in memory from here on."""
    PRIVATE = auto()
    """They are, and the job has done no step yet."""
    STEPPED = auto()
    """They are, and the job has done a step: all that the task needs has been there."""

    @property
    def hides(self) -> bool:
        """Whether an exception may hold a record (Rule 20)."""
        return self in (Phase.OPENING, Phase.PRIVATE, Phase.STEPPED)


def of_the_record(error: BaseException) -> tuple[EndKind, Reason, str] | None:
    """How a rank ends whose ledger, journal or volume does not let it go on; None for the rest."""
    match error:
        case TrainingHeld():
            return EndKind.HELD, error.reason, error.message
        case Superseded():
            return EndKind.SUPERSEDED, Reason.SUPERSEDED, str(error)
        case LedgerError():
            return EndKind.HELD, Reason.LEDGER_UNREADABLE, str(error)
        case VolumeFull():
            return EndKind.HELD, Reason.STORAGE_FULL, str(error.strerror)
        case VolumeUnusable():
            return EndKind.HELD, Reason.STORAGE_UNUSABLE, str(error.strerror)
    return None


def lost(rank: int) -> str:
    """How a rank describes a collective that broke off."""
    return f"rank {rank} lost another rank, or the way to it, while they exchanged sums"


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
        The job opted out of Rule 20 (`telemetry: NotCoveredByEpsilon`).
    charged
        Draws are charged, as far as this rank knows.
    """

    entrypoint: str
    rank: int
    shows_private_data: bool
    charged: bool = False

    def explain(self, error: BaseException, phase: Phase) -> tuple[EndKind, Reason, str]:
        """How the rank ends, the reason, and a message that holds nothing of the data (Rule 20).

        What no other try can cure is FAILED; whether that ends the job, or holds it, is decided
        by `verdicts.weigh`, which knows what is charged.
        """
        from dtjob_trainer.mechanism.group import CollectiveFailed, ParametersDiverged

        match error:
            case TaskError() if self.own_words(error, phase):
                return EndKind.FAILED, error.reason, f"{error.message}{self._at_cause(error)}"
            case ParametersDiverged():
                # Not retried: it would compute wrong again, and publish steps of it.
                return EndKind.FAILED, Reason.REPLICAS_DIVERGED, str(error)
            case CollectiveFailed():
                why = "" if phase.hides else f": {error}"
                return EndKind.CRASHED, Reason.RANK_FAILED, f"{lost(self.rank)}{why}"
        if (ended := of_the_record(error)) is not None:
            return ended
        if isinstance(error, KeyboardInterrupt):
            # Somebody sent a signal, which another attempt need not meet.
            message = f"rank {self.rank} was interrupted: {self.describe(error)}"
            return EndKind.CRASHED, Reason.RANK_FAILED, message
        if isinstance(error, SystemExit) and not phase.hides:
            message = shown_in_full("the task ended its own process", error, _RAISE_INSTEAD)
            return EndKind.FAILED, Reason.TASK_FAILED, message
        if phase is Phase.OURS:
            message = f"{type(error).__name__}: {error}"
            if wants_memory(error):
                return self._out_of_memory(message)
            return EndKind.CRASHED, Reason.RANK_FAILED, message
        if phase is Phase.TRIED:
            return self._explain_tried(error)
        return self._explain_private(error, phase)

    def _explain_tried(self, error: BaseException) -> tuple[EndKind, Reason, str]:
        """What the task meets on synthetic data it meets again, unless it came from outside."""
        # Where draws are charged another try may cost the run its last restart; to hold it, none.
        if may_pass(error, in_doubt=not self.charged):
            description = f"{type(error).__name__}: {error}"
            where = where_in_task(error)
            if wants_memory(error):
                return self._out_of_memory(
                    description, f" while it tried the task on synthetic data{where}"
                )
            message = (
                f"trying the task on synthetic data, rank {self.rank} met{where} {description}"
            )
            return EndKind.CRASHED, Reason.RANK_FAILED, message
        message = shown_in_full("the dry run on synthetic data failed", error, CORRECT_THE_TASK)
        return EndKind.FAILED, Reason.DRY_RUN_FAILED, message

    def _explain_private(self, error: BaseException, phase: Phase) -> tuple[EndKind, Reason, str]:
        description = self.describe(error)
        passes = may_pass(error, in_doubt=False)
        if phase is Phase.STEPPED and not passes and was_not_there(error):
            # Not final: a trained model would be lost for a mount that comes back.
            asked = "is what the task reads still where it was, on every worker?"
            message = f"rank {self.rank} raised {description} after the job's first step; {asked}"
            return EndKind.CRASHED, Reason.RANK_FAILED, message
        if isinstance(error, NO_SUCH_PATH) and not passes and self._passed_through_task(error):
            where = (
                "is the data where the task looks for it (--data, storage.data, DTJOB_DATA_DIR)?"
            )
            return EndKind.FAILED, Reason.TASK_FAILED, f"the task raised {description}; {where}"
        if wants_memory(error):
            return self._out_of_memory(description)
        if passes or isinstance(error, NO_SUCH_PATH):
            return EndKind.CRASHED, Reason.RANK_FAILED, f"rank {self.rank} raised {description}"
        # Another attempt would run into it again, and spend a lease each time.
        what = "opening the data" if phase is Phase.OPENING else "training"
        remedy = _LOGGED if self.shows_private_data else _HIDDEN
        if place := data_place.remedy(error):
            remedy = f"; {place}"
        return EndKind.FAILED, Reason.TASK_FAILED, f"{what} raised {description}{remedy}"

    def _out_of_memory(self, description: str, when: str = "") -> tuple[EndKind, Reason, str]:
        message = f"rank {self.rank} ran out of memory{when}: {description}{_LESS_MEMORY}"
        return EndKind.CRASHED, Reason.RANK_FAILED, message

    def _passed_through_task(self, error: BaseException) -> str | None:
        return task_code_place(error, self.entrypoint)

    def _at_cause(self, error: TaskError) -> str:
        """Where in the task's code something was refused while it trained."""
        place = error.__cause__ and self._passed_through_task(error.__cause__)
        return f" (at {place})" if place else ""

    def own_words(self, error: TaskError, phase: Phase) -> bool:
        """Whether a message is ours, and nothing of the data can have come into it (Rule 20)."""
        return raised_by_dtjob(error) and not (phase.hides and self._passed_through_task(error))

    def describe(self, error: BaseException) -> str:
        """All that may leave the pod of an exception once private records may be in memory.

        Also of a job that has opted out of Rule 20: it keeps more in the worker's log alone.
        """
        place = self._passed_through_task(error)
        return f"{type(error).__name__} ({place or 'outside the code of the task'})"

    def logged(self, error: BaseException, phase: Phase) -> dict[str, str]:
        """What else the worker's log keeps of it, for a job that has opted out of Rule 20."""
        if not (phase.hides and self.shows_private_data):
            return {}
        return {"traceback": task_traceback(error)}
