"""Why a process died that left no message: read from its exit code and its memory group.

Pure: what the group has counted is passed in.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End, EndKind
from dtjob_trainer.process.memory_group import MemoryCount

_LIKELY: dict[int, str] = {
    signal.SIGSEGV: "a fault in native code: torch's, a driver's or that of an extension",
    signal.SIGBUS: "shared memory (/dev/shm) is full, or a mapped file was cut short",
    signal.SIGILL: "a library was built for a processor with other instructions than this one",
    signal.SIGABRT: "native code gave up; its words are in the worker's log, unless the data "
    "were open",
    signal.SIGFPE: "native code divided by zero",
    signal.SIGSYS: "the container's seccomp profile forbids a system call that it made",
    signal.SIGXCPU: "its limit of CPU time was reached (ulimit -t)",
    signal.SIGXFSZ: "it wrote a file larger than its limit (ulimit -f)",
}
_SOMEBODY = "somebody asked for it"


def end_of_rank(
    rank: int, exit_code: int | None, before: MemoryCount | None, after: MemoryCount | None
) -> End:
    """Return the end of a rank that left no message.

    Parameters
    ----------
    exit_code
        As `multiprocessing` gives it: negative for a signal.
    before, after
        The worker's memory group when the rank was started, and now.
    """
    if exit_code is not None and exit_code < 0:
        reason, why = cause(-exit_code, before, after)
        return End(
            kind=EndKind.CRASHED,
            rank=rank,
            reason=reason,
            message=f"rank {rank} was ended by {name_of(-exit_code)}: {why}",
            signal=-exit_code,
        )
    return End(
        kind=EndKind.CRASHED,
        rank=rank,
        reason=Reason.RANK_FAILED,
        message=f"rank {rank} exited with code {exit_code} and no word: its task, or a library, "
        "ended the process",
        exit_code=exit_code,
    )


@dataclass(frozen=True)
class Death:
    """What a process that is no rank died of; `words` are a sentence, or the end of one."""

    words: str
    reason: Reason = Reason.RANK_FAILED


def describe(exit_code: int | None, before: MemoryCount | None, after: MemoryCount | None) -> Death:
    """Return what happened to a process that is no rank, as the end of a sentence."""
    if exit_code is None or exit_code >= 0:
        return Death(f"exited with code {exit_code}")
    reason, why = cause(-exit_code, before, after)
    return Death(f"was ended by {name_of(-exit_code)}: {why}", reason)


def end_with_another(rank: int, death: Death) -> End:
    """Return the end of a rank that was taken down by the death of what had started it."""
    message = f"rank {rank} ended with what had started it: {death.words}"
    return End(kind=EndKind.CRASHED, rank=rank, reason=death.reason, message=message)


def cause(number: int, before: MemoryCount | None, after: MemoryCount | None) -> tuple[Reason, str]:
    """Return what a signal is most likely the end of."""
    if number != signal.SIGKILL:
        return Reason.RANK_FAILED, _LIKELY.get(number, _SOMEBODY)
    if before is None or after is None or after.kills <= before.kills:
        return (
            Reason.RANK_FAILED,
            "somebody else ended it (kill -9), or the machine's own out-of-memory killer, which "
            "the kernel's log would tell",
        )
    if after.limit is None or after.at_limit <= before.at_limit:
        return (
            Reason.OUT_OF_MEMORY,
            "out of memory: the machine has none left, or what is around this container has "
            "reached a limit; use a larger machine, or fewer workers on it",
        )
    return (
        Reason.OUT_OF_MEMORY,
        f"out of memory: the container's limit is {after.limit / 2**30:.3g} GiB; in a new "
        "job, raise spec.workers.resources.limits.memory, or give a smaller "
        "spec.training.physicalBatchSize",
    )


class MemoryKills:
    """The out-of-memory kills of one group, attributed to those of its processes that are watched.

    The group counts them, and not whom they hit. So each explains one death at most, and none of
    a process that was started after it.
    """

    def __init__(self) -> None:
        self._before: dict[object, MemoryCount | None] = {}

    def started(self, process: object, count: MemoryCount | None) -> None:
        """Begin to watch a process; `count` was read before it was started."""
        self._before[process] = count

    def before(
        self, process: object, exit_code: int | None, now: MemoryCount | None
    ) -> MemoryCount | None:
        """Return the count by which to judge the end of a process: that of before it started."""
        before = self._before.pop(process, None)
        if (
            exit_code == -signal.SIGKILL
            and now is not None
            and cause(signal.SIGKILL, before, now)[0] is Reason.OUT_OF_MEMORY
        ):
            for other, count in self._before.items():
                if count is not None:
                    self._before[other] = replace(count, kills=min(count.kills + 1, now.kills))
        return before

    def cause(self, process: object, number: int, now: MemoryCount | None) -> str:
        """Return what a signal that has ended a process is most likely the end of."""
        return cause(number, self.before(process, -number, now), now)[1]

    def explained(self, now: MemoryCount | None) -> None:
        """Attribute every kill counted until now to processes that somebody else watches."""
        for process, count in self._before.items():
            if count is not None:
                self._before[process] = now


def name_of(number: int) -> str:
    """Return `SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
