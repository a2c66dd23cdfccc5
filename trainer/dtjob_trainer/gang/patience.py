"""How long rank 0 may be silent before its attempt counts as hung. Pure: time is passed in.

A stall spends a lease, so none may be seen where there is only a slow step; docs/design/workers.md
says why the numbers are these.
"""

from __future__ import annotations

from dtjob_api.ledger.privacy_ledger import LedgerStatus, PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_api.wire.pipe import Progress
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.gang.verdicts import is_uncovered
from dtjob_trainer.ledger.lease import has_leased

#: An attempt's first step loads data and kernels and compiles: it has so many times stallSeconds.
START_FACTOR = 4
#: Each stall in a row doubles the time for every step, up to so many: then a person is needed.
STALLS_IN_A_ROW = 3
#: A step may take so many times as long as the longest that was measured.
STEP_FACTOR = 3


class Patience:
    """How long rank 0 of one attempt may be silent.

    Parameters
    ----------
    stalls
        Attempts in a row that have stalled before this one (`stalls_in_a_row`).
    now
        When it begins.
    longest
        The longest step of the attempts before it, as far as anybody has measured them.

    Attributes
    ----------
    stall_seconds
        `runPolicy.stallSeconds`, the least that is allowed, which a person may change.
    longest
        The same, with the steps of this one.
    has_stepped
        Whether it has done a step.
    """

    def __init__(self, stall_seconds: float, stalls: int, now: float, longest: float = 0.0) -> None:
        self.stall_seconds = stall_seconds
        self._doubled = 2.0 ** min(stalls, STALLS_IN_A_ROW - 1)
        self._received_at = now
        self._step: int | None = None
        self._tried = 0.0
        self.longest = longest
        self.has_stepped = False

    def received(self, progress: Progress, now: float) -> None:
        """Take a message of rank 0: a gap that ends with a step has been a step."""
        self._tried = max(self._tried, progress.step_estimate or 0.0)
        if progress.state is WorkerState.RUNNING:
            if self._step is not None and progress.step > self._step:
                self.longest = max(self.longest, now - self._received_at)
                self.has_stepped = True
            self._step = progress.step
        self._received_at = now

    @property
    def allowed(self) -> float:
        """Seconds of silence that do not count as a stall yet."""
        least, measured = self._doubled * self.stall_seconds, STEP_FACTOR * self.longest
        if self.has_stepped:
            return max(least, measured)
        return max(START_FACTOR * least, self._tried, measured)

    def lost(self, now: float) -> str | None:
        """Why the attempt counts as hung; None while it doesn't."""
        silent, allowed = now - self._received_at, self.allowed
        if silent <= allowed:
            return None
        setting = f"runPolicy.stallSeconds is {self.stall_seconds:.0f}"
        if not self.has_stepped:
            return (
                f"no first step of the attempt for {silent:.0f} s, which has {allowed:.0f} s "
                f"({setting})"
            )
        return (
            f"no step for {silent:.0f} s, {allowed:.0f} s being allowed ({setting}, the longest "
            f"step took {self.longest:.0f} s)"
        )


def stalls_in_a_row(status: LedgerStatus) -> int:
    """How many of the newest attempts that have ended stalled in vain, one after another.

    Not in vain was one that brought a checkpoint. That of step 0 comes with the first lease.
    """
    checkpoint, count = status.checkpoint, 0
    brought = checkpoint.attempt if checkpoint is not None and checkpoint.step else 0
    for record in reversed([record for record in status.attempts if record.end is not None]):
        if record.reason != Reason.STALLED or record.attempt <= brought:
            break
        count += 1
    return count


def needs_a_person(ledger: PrivacyLedger, attempt: int) -> str | None:
    """Why no other attempt may follow by itself one that stalled; None where one may.

    Where it brought no checkpoint, the next takes a lease too, which the reserve has to cover, and
    finds the same again: before its first step, or at the same step after it.

    Parameters
    ----------
    ledger
        With the end of `attempt` in it.
    """
    status, plan = ledger.status, ledger.spec.plan
    if (stalls := stalls_in_a_row(status)) == 0:
        return None
    done = status.checkpoint.step if status.checkpoint else 0
    uncovered = has_leased(status, attempt) and is_uncovered(ledger)
    if stalls < STALLS_IN_A_ROW and not uncovered:
        return None
    why = (
        f"{stalls} attempts in a row have stalled"
        if stalls >= STALLS_IN_A_ROW
        else f"the reserve of {plan.replay_reserve_steps} draws does not cover another lost lease"
    )
    return (
        f"{why}, the last one without a new checkpoint; {status.charged} draws are charged for "
        f"{done} steps. Set runPolicy.stallSeconds well above the slowest step, or find what it "
        "waits for; then go on with --resume (in a cluster: suspend the job and resume it, by "
        "spec.suspend)"
    )
