"""Which of the ends that ranks report is that of their attempt, and when enough are known. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End, EndKind

#: How long an orderly end waits for the ranks that are still on their way out.
ORDERLY_SECONDS = 10.0
#: How long a crash that may be the echo of another waits for the other's report, which a slow
#: supervisor sends late.
_ECHO_SECONDS = 5.0
#: How long a verdict waits for the others: a rank that waits to meet another has no end to report.
_VERDICT_SECONDS = 1.0

_WAITS = {
    EndKind.SUCCEEDED: ORDERLY_SECONDS,
    EndKind.DRAINED: ORDERLY_SECONDS,
    EndKind.CRASHED: _ECHO_SECONDS,
}

#: Without one worker's ranks the others can't join, so nothing of the attempt has been leased.
STOPPED_BEFORE_START = End(
    kind=EndKind.DRAINED,
    rank=None,
    reason=Reason.STOPPED,
    message="a worker was told to stop before its ranks were started",
)

#: What decides an attempt first: a verdict before a death, a death before what peers saw of it.
_CAUSES = (
    EndKind.SUCCEEDED,
    EndKind.FAILED,
    EndKind.HELD,
    EndKind.SUPERSEDED,
    EndKind.DRAINED,
)


def cause(ends: Sequence[End]) -> End | None:
    """The end that explains the others: verdicts first, then killed processes, then the rest.

    A rank whose peer was killed loses its connection and ends too; its end is a consequence.
    """
    for kind in _CAUSES:
        for end in ends:
            if end.kind is kind:
                return end
    crashed = [end for end in ends if end.kind is EndKind.CRASHED]
    for end in crashed:
        if end.signal is not None:
            return end
    return crashed[0] if crashed else None


def bounded(ends: Sequence[End]) -> tuple[End, ...]:
    """All of one worker's ends; only the one that may be the cause among all keeps its message.

    A hello is bounded (`dtjob_serving.doors.BODY_BYTES`): the messages of 256 ranks would not fit.
    """
    chosen = cause(ends)
    return tuple(end if end is chosen else end.model_copy(update={"message": ""}) for end in ends)


class Hearing:
    """Takes the ends of one attempt's ranks until one of them decides it.

    Parameters
    ----------
    ranks
        How many there are.

    Attributes
    ----------
    deadline
        When the ends so far decide, whatever comes; None while they explain no end.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self.deadline: float | None = None

    def decide(self, ends: list[End], lost: End | None, now: float) -> End | None:
        """The end of the attempt, if it has ended.

        Parameters
        ----------
        ends
            All that were reported.
        lost
            The end of a whole worker.
        """
        first = cause(ends)
        if first is None:
            return lost
        if len(ends) == self._ranks or first.signal is not None:
            return first
        if first.kind is EndKind.CRASHED and lost is not None:
            return lost  # its ranks are what the others lost, and nobody reports their ends
        if self.deadline is None:
            self.deadline = now + _WAITS.get(first.kind, _VERDICT_SECONDS)
        return first if now >= self.deadline else None
