"""How long a coordinator may be silent before its attempt counts as hung. Pure: time is passed in.

A stall spends a lease, so none may be seen where there is only a slow step; docs/design/workers.md
says why the numbers are these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dtjob_api.ledger import AttemptRecord, PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_trainer.verdicts import has_leased

#: An attempt's first step loads data and kernels and compiles: it has so many times stallSeconds,
START_FACTOR = 4
#: and twice that after each stall, up to so many stalls in a row: then a person is needed.
STALLS_IN_A_ROW = 3
#: A step may take so many times as long as the longest of its attempt.
STEP_FACTOR = 3


class Patience:
    """What is allowed to the coordinator of one attempt.

    Parameters
    ----------
    stall_seconds
        ``runPolicy.stallSeconds``, the least that is allowed.
    stalls
        Attempts in a row that have stalled before this one.
    now
        When it begins.
    """

    def __init__(self, stall_seconds: float, stalls: int, now: float) -> None:
        self._stall_seconds = stall_seconds
        self._start = stall_seconds * START_FACTOR * 2.0 ** min(stalls, STALLS_IN_A_ROW - 1)
        self._heard = now
        self._step: int | None = None
        self._longest = 0.0
        self._tried = 0.0

    def heard(self, said: Mapping[str, Any], now: float) -> None:
        """Take a message of the coordinator: a gap that ends with a step has been a step."""
        self._tried = max(self._tried, said.get("step_estimate") or 0.0)
        if said["state"] == "Running":
            step = said.get("step", 0)
            if self._step is not None and step > self._step:
                self._longest = max(self._longest, now - self._heard)
            self._step = step
        self._heard = now

    @property
    def has_stepped(self) -> bool:
        """Whether the attempt has done a step."""
        return self._longest > 0

    @property
    def allowed(self) -> float:
        """Seconds of silence that are none yet."""
        if self.has_stepped:
            return max(self._stall_seconds, STEP_FACTOR * self._longest)
        return max(self._start, self._tried)

    def lost(self, now: float) -> str | None:
        """Why the attempt counts as hung; None while it doesn't."""
        silent, allowed = now - self._heard, self.allowed
        if silent <= allowed:
            return None
        told = f"runPolicy.stallSeconds is {self._stall_seconds:.0f}"
        if not self.has_stepped:
            return (
                f"no first step of the attempt for {silent:.0f} s, which has {allowed:.0f} s "
                f"({told})"
            )
        return (
            f"no step for {silent:.0f} s, {allowed:.0f} s being allowed ({told}, the longest step "
            f"took {self._longest:.0f} s)"
        )


def stalls_in_a_row(attempts: Sequence[AttemptRecord]) -> int:
    """How many of the newest attempts that have ended did so as stalled, one after another."""
    count = 0
    for record in reversed([record for record in attempts if record.end is not None]):
        if record.reason != Reason.STALLED:
            break
        count += 1
    return count


def needs_a_person(ledger: PrivacyLedger, attempt: int) -> str | None:
    """Why no other attempt may follow by itself one that stalled before its first step.

    Each takes a lease, which the reserve has to cover, and finds the same again.

    Parameters
    ----------
    ledger
        With the end of ``attempt`` in it.
    """
    status, plan = ledger.status, ledger.spec.plan
    stalls = stalls_in_a_row(status.attempts)
    done = status.checkpoint.step if status.checkpoint else 0
    lost = status.charged - done
    uncovered = has_leased(status, attempt) and lost + plan.lease_steps > plan.replay_reserve_steps
    if stalls < STALLS_IN_A_ROW and not uncovered:
        return None
    why = (
        f"{stalls} attempts in a row have stalled"
        if stalls >= STALLS_IN_A_ROW
        else f"the reserve of {plan.replay_reserve_steps} draws does not cover another lost lease"
    )
    return (
        f"{why}, the last one before its first step; {status.charged} draws are charged for "
        f"{done} steps. Set runPolicy.stallSeconds well above the slowest step, or find what it "
        "waits for; then resume (in a cluster: change stallSeconds in either case, and delete the "
        "StatefulSet, which comes back with it)"
    )
