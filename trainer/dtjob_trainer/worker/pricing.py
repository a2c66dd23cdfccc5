"""Epsilon of the charged draws, as the coordinator shows it and sends it to rank 0 (Rule 13).

The figure comes from a helper process that needs memory and seconds to start. Where it is late or
fails, the Rényi bound stands in for it: an upper bound too, a little higher, and had at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import Segment
from dtjob_accounting.process import HelperFailed, PldProcess
from dtjob_accounting.rounding import decimal_up
from dtjob_accounting.upper_bound import upper_bound
from dtjob_api.wire.pipe import Epsilon, Spending
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.process.logs import Logger

#: How long the helper's figure is waited for before the bound is shown. What is shown never goes
#: down, so a bound that was shown needlessly would stay; a cold helper takes some seconds.
_LATE_SECONDS = 15.0
#: How long a helper that failed is left alone.
_AGAIN_SECONDS = 5.0


class SegmentAccountant(Protocol):
    """What is asked of the helper; `dtjob_accounting.process.PldProcess`."""

    def submit_epsilon_of_segments(
        self, segments: Sequence[Segment], delta: float
    ) -> Future[float]:
        """Return the epsilon of these draws at `delta`, once it is computed."""
        ...

    def close(self) -> None:
        """End the helper."""
        ...


@dataclass(frozen=True)
class _Question:
    attempt: int
    charged: int
    spending: Spending


class Pricing:
    """Keeps `charged` and `epsilon_spent` of the report true together.

    Shown is a pair: epsilon is never of fewer draws than the `charged` beside it, and neither
    goes down. While the figure of new draws is computed the pair before them stays.

    Parameters
    ----------
    tell
        Sends the helper's figure to rank 0, whose result has to wait for it.
    start
        Starts the helper.
    """

    def __init__(
        self,
        current: CurrentView,
        log: Logger,
        tell: Callable[[Epsilon], object],
        start: Callable[[], SegmentAccountant] = PldProcess,
    ) -> None:
        self._current, self._log, self._tell, self._start = current, log, tell, start
        self._helper: SegmentAccountant | None = None
        self._newest: _Question | None = None
        self._answered: _Question | None = None
        self._warned: _Question | None = None
        self._greatest: str | None = None
        self._working: asyncio.Task[None] | None = None

    def warm_up(self) -> None:
        """Start the helper, so that it is there when the first draws are charged."""
        if self._helper is not None:
            return
        try:
            self._helper = self._start()
        except HelperFailed as error:
            self._log.warning("no helper to compute epsilon yet", detail=str(error))

    def close(self) -> None:
        """End the helper."""
        if self._working is not None:
            self._working.cancel()
        if self._helper is not None:
            self._helper.close()

    def charge(self, attempt: int, charged: int, spending: Spending) -> None:
        """Have epsilon of these draws shown and sent, unless it has been or is about to be.

        Every attempt gets it, also for draws that one before it has charged.
        """
        newest = self._newest
        if newest is not None and (attempt, charged) <= (newest.attempt, newest.charged):
            return
        self._newest = _Question(attempt, charged, spending)
        if self._working is None or self._working.done():
            report = self._current.report
            if report.epsilon_spent is None:
                self._current.update(charged=max(charged, report.charged))
            self._working = asyncio.create_task(self._work())
            self._working.add_done_callback(self._log_an_error)

    def _log_an_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("computing epsilon failed", detail=f"{error!r}")

    async def _work(self) -> None:
        """Answer the newest question, one at a time: a slow helper skips what came between."""
        while (question := self._newest) is not None and question != self._answered:
            try:
                async with asyncio.timeout(_LATE_SECONDS):
                    figure = await asyncio.wrap_future(self._ask(question))
            except TimeoutError:
                self._show_bound(question, f"no answer within {_LATE_SECONDS:g} s")
            except HelperFailed as error:
                self._show_bound(question, str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
            except PlanError as error:
                self._show_bound(question, str(error))
                self._answered = question
            else:
                value = decimal_up(figure)
                self._show(question, value)
                self._tell(Epsilon(question.charged, value))
                self._answered = question

    def _ask(self, question: _Question) -> Future[float]:
        if self._helper is None:
            self._helper = self._start()
        spending = question.spending
        return self._helper.submit_epsilon_of_segments(spending.segments, spending.delta)

    def _show_bound(self, question: _Question, why: str) -> None:
        spending = question.spending
        bound = upper_bound(spending.segments, spending.delta, spending.guaranteed)
        if question != self._warned:
            self._log.warning(
                "epsilon comes late", charged=question.charged, shown=bound, detail=why
            )
        self._warned = question
        self._show(question, bound)

    def _show(self, question: _Question, value: str | None) -> None:
        if question.charged < self._current.report.charged:
            return  # the ledger was read meanwhile: this is of fewer draws
        if value is not None and (self._greatest is None or float(value) > float(self._greatest)):
            self._greatest = value
        shown = self._greatest if value is not None else None
        self._current.update(charged=question.charged, epsilon_spent=shown)
