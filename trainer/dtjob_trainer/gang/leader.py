"""The coordinator's other task: form attempt after attempt until the ledger has an outcome."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from dtjob_api.ledger.privacy_ledger import Order, OrderState, PrivacyLedger
from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, End, EndKind
from dtjob_api.wire.pipe import Drain, Progress, ToRank
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.gang import attempts
from dtjob_trainer.gang.consequences import Follows, held, record_end
from dtjob_trainer.gang.ends import ORDERLY_SECONDS, STOPPED_BEFORE_START, Hearing
from dtjob_trainer.gang.members import AwakeClock, Gang
from dtjob_trainer.gang.orders import Orders
from dtjob_trainer.gang.patience import Patience, stalls_in_a_row
from dtjob_trainer.gang.reception import Reception
from dtjob_trainer.gang.splice import KEY_BYTES
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.ledger.backend import Ledger, LedgerError, LedgerMissing, Superseded, Versioned
from dtjob_trainer.ledger.durable import VolumeFull
from dtjob_trainer.ledger.unrecorded import unrecorded_draws
from dtjob_trainer.process.logs import Logger

#: How often the leader's clock is read at least.
_TICK_SECONDS = 0.5
#: How long to wait for what is not to be had now.
_PATIENCE_SECONDS = 2.0
#: How long a pod waits before it looks whether a person has put right what an attempt refused.
_REFUSED_SECONDS = 60.0


class Leader:
    """Drives the gang, on the coordinator.

    Parameters
    ----------
    tell_rank_zero
        Sends a message to rank 0, which is a rank of this worker; False while it
        does not run.
    trouble
        Why no worker can be known as one, while that lasts.

    Attributes
    ----------
    reception
        Where supervisors say hello.
    newest
        Number and ranks of the newest attempt that has begun here; zeros before the first.
    """

    def __init__(
        self,
        config: WorkerConfig,
        ledger: Ledger,
        current: CurrentView,
        log: Logger,
        tell_rank_zero: Callable[[ToRank], bool],
        trouble: Callable[[], tuple[Reason, str] | None] = lambda: None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._current = current
        self._log = log
        self._tell_rank_zero = tell_rank_zero
        self._trouble = trouble
        self._gang = Gang()
        self._changed = asyncio.Event()
        # An attempt that is not closed yet, and the generation it ran under.
        self._ended: tuple[int, int, End, datetime] | None = None
        self._orders = Orders(ledger, self._changed.set, log)
        self.terminating = False
        self.left = False
        self.newest = (0, 0)
        self._clock = AwakeClock(time.monotonic())
        self._patience = Patience(self._orders.policy.stall_seconds, 0, self._now())
        self._not_before = 0.0
        self.reception = Reception(self._gang, self._orders, self._received, self._now)

    def _received(self) -> None:
        self._current.view = replace(self._current.view, gpus=self._gang.gpus())
        self._changed.set()

    @property
    def store_key(self) -> str:
        """What opens the way to the store now; empty while no attempt runs."""
        return self._gang.directive.store_key

    def heard_rank_zero(self, progress: Progress) -> None:
        """Note a progress message of rank 0."""
        self._patience.received(progress, self._now())

    def wake(self) -> None:
        """Something of this worker changed (a message of a rank, a signal)."""
        self._changed.set()

    async def lead(self) -> WorkerExit:
        """Form attempts until there is an outcome, a refusal or an order to stop; the exit code."""
        ticking = asyncio.create_task(self._tick())
        try:
            return await self._lead()
        finally:
            ticking.cancel()

    def _now(self) -> float:
        """The time by which others are silent: what this process did not run for is not in it."""
        return self._clock.read(time.monotonic())

    async def _tick(self) -> None:
        while True:
            self._now()
            await asyncio.sleep(_TICK_SECONDS)

    async def _lead(self) -> WorkerExit:
        while True:
            try:
                code = await self._next()
            except LedgerError as error:
                code = await self._without(Reason.LEDGER_UNREADABLE, str(error))
            except VolumeFull as error:
                code = await self._without(Reason.STORAGE_FULL, str(error.strerror))
            if code is not None:
                return code

    async def _next(self) -> WorkerExit | None:
        """Close the attempt that has ended; else what the ledger asks for: end, hold, attempt."""
        if self._ended is not None:
            return await self._close(*self._ended)
        versioned = await self._read()
        if versioned is None:
            return await self._finish(WorkerExit.OK, WorkerState.STOPPED, None, None)
        ledger, order = versioned.ledger, versioned.ledger.spec.run
        self._current.show(ledger)
        if (outcome := ledger.status.outcome) is not None:
            state = WorkerState(outcome.state)
            code = WorkerExit.OK if state is WorkerState.SUCCEEDED else WorkerExit.FAILED
            return await self._finish(code, state, outcome.reason, outcome.message)
        if order.state is not OrderState.RUN:
            await self._rest(ledger)
            return None
        if self._config.stays_after_outcome and (why := held(ledger)) is not None:
            # A pod that came back; a local run is begun by a person each time.
            return await self._without(why.reason, why.message, math.inf)
        if self._current.report.state is WorkerState.WAITING:
            self._show_state(WorkerState.STARTING, None, None)  # what it waited for has come
        if await self._back_off(order) and await self._gather(order):
            await self._attempt(ledger)
        return None

    async def _read(self) -> Versioned | None:
        """The ledger, waited for until it exists; None when told to stop."""
        while not self.terminating:
            try:
                versioned = await self._orders.read()
            except LedgerMissing:
                self._current.update(stage="waiting for the ledger")
                await self._change(0.2)
                continue
            await self.reception.wake()
            return versioned
        return None

    async def _without(
        self, reason: Reason, message: str, seconds: float = _PATIENCE_SECONDS
    ) -> WorkerExit | None:
        """Nothing is trained without ledger and volume: a pod waits for them, a local run ends."""
        if not self._config.stays_after_outcome:
            return await self._finish(WorkerExit.HELD, WorkerState.HELD, reason, message)
        if self._current.report.message != message:
            self._log.error("waiting", reason=reason, detail=message)
        self._current.update(stage="waiting")
        self._show_state(WorkerState.WAITING, reason, message)
        deadline = time.monotonic() + seconds
        # No order is answered before the end of the attempt that it came after is written.
        keeps_an_end = self._ended is not None
        while not self.terminating and (left := deadline - time.monotonic()) > 0:
            if self._orders.has_news and not keeps_an_end:
                break
            await self._change(min(left, _PATIENCE_SECONDS))
        if not keeps_an_end:
            # News wake once: where the ledger can't be read now, it is not asked all the time.
            self._orders.take()
        return None

    def _show_state(self, state: WorkerState, reason: str | None, message: str | None) -> None:
        self._current.update(state=state, reason=reason, message=message)

    async def _rest(self, ledger: PrivacyLedger) -> None:
        """Answer an order to drain, and wait for another."""
        order_generation, status = ledger.spec.run.generation, ledger.status
        if status.drained is None or status.drained < order_generation:
            await asyncio.to_thread(
                attempts.record_drained, self._ledger, status.attempt, order_generation
            )
        self._current.update(stage="drained")
        self._show_state(WorkerState.DRAINED, None, None)
        while self._orders.order == ledger.spec.run and not self.terminating:
            await self._change(1.0)

    async def _back_off(self, order: Order) -> bool:
        """Pause after a failure; False when something else is to be done first."""
        if (left := self._not_before - self._now()) > 0:
            self._current.update(stage=f"pausing {left:.0f} s after a failure (runPolicy.backoff)")
        while (left := self._not_before - self._now()) > 0:
            if self.terminating or self._orders.order != order:
                return False
            await self._change(min(left, _PATIENCE_SECONDS))
        return not self.terminating

    async def _gather(self, order: Order) -> bool:
        """Wait until every worker is ready; False when something else is to be done first."""
        self._gang.direct(Action.WAIT)
        await self.reception.wake()
        while absent := self._gang.absent(order.workers, self._now()):
            if self.terminating or self._orders.order != order:
                return False
            awaited = f"{len(absent)} of {order.workers} workers"
            self._current.update(stage=f"waiting for {awaited} to come up and import torch")
            self._show_trouble()
            await self._change(0.5)
        self._show_trouble()
        return not self.terminating

    def _show_trouble(self) -> None:
        """Show what keeps workers from being known, and when it no longer does."""
        if (trouble := self._trouble()) is not None:
            self._show_state(WorkerState.WAITING, *trouble)
        elif self._current.report.reason == Reason.GANG_UNPROVABLE:
            self._show_state(WorkerState.STARTING, None, None)

    async def _attempt(self, ledger: PrivacyLedger) -> None:
        """One attempt from its number to its end, which is to be closed next."""
        order = ledger.spec.run
        # As they are ready now: one that is restarted during the write starts no ranks.
        incarnations = self._gang.incarnations(order.workers)
        is_recorded = await asyncio.to_thread(unrecorded_draws, ledger, self._config) is None
        try:
            begun = await asyncio.to_thread(
                attempts.begin_attempt,
                self._ledger,
                datetime.now(UTC),
                # Else the limit is an outcome: its coordinator will say what is wrong.
                is_limited=is_recorded,
                order=order,
            )
        except (Superseded, attempts.OrderChanged):
            return  # the job has its outcome by now, or another order, which is read next
        if begun.ledger.status.outcome is not None:
            return
        attempt = begun.ledger.status.attempt
        self.newest = attempt, order.workers * self._config.ranks
        self._log.info("attempt begins", attempt=attempt, workers=order.workers)
        state = WorkerState.STARTING if attempt == 1 else WorkerState.RESTARTING
        self._current.update(attempt=attempt, state=state, stage="starting ranks")
        stalls, longest = stalls_in_a_row(begun.ledger.status), self._patience.longest
        least = begun.ledger.spec.run_policy.stall_seconds
        self._patience = Patience(least, stalls, self._now(), longest)
        end = await self._run(attempt, order, incarnations)
        self._log.info("attempt ended", attempt=attempt, **end.model_dump(exclude_none=True))
        self._ended = attempt, order.generation, end, datetime.now(UTC)

    async def _run(self, attempt: int, order: Order, incarnations: dict[int, str]) -> End:
        """Have all workers run the attempt; what ended it."""
        self._gang.direct(
            Action.RUN,
            attempt=attempt,
            workers=order.workers,
            store_key=secrets.token_hex(KEY_BYTES),
        )
        await self.reception.wake()
        end = await self._until_end(attempt, order, incarnations)
        self._gang.direct(Action.END, attempt=attempt)
        await self.reception.wake()
        while (left := self._gang.running(attempt, order.workers)) and not self._gang.lost(
            {position: incarnations[position] for position in left}, self._now()
        ):
            await self._change(0.5)
        return end

    async def _until_end(self, attempt: int, order: Order, incarnations: dict[int, str]) -> End:
        hearing, drain_sent = Hearing(order.workers * self._config.ranks), False
        while True:
            now = self._now()
            lost = self._gang.lost(incarnations, now)
            end = hearing.decide(self._gang.ends(attempt, order.workers), lost, now)
            waits = hearing.deadline is None  # nothing so far explains an end
            if end is not None or (waits and (end := self._stalled(now)) is not None):
                return end
            ordered = self._orders.order != order or self._gang.wants_drain(order.workers)
            stop = self.terminating or ordered
            if stop and waits and self._gang.never_started(order.workers):
                return STOPPED_BEFORE_START
            if stop and not drain_sent:
                self._current.update(state=WorkerState.DRAINING, stage="finishing the step")
                # The ranks may still be starting: it is sent again until rank 0 receives it.
                drain_sent = self._tell_rank_zero(Drain())
            left = 0.5 if hearing.deadline is None else hearing.deadline - now
            await self._change(max(0.0, min(0.5, left)))

    def _stalled(self, now: float) -> End | None:
        self._patience.stall_seconds = self._orders.policy.stall_seconds
        lost = self._patience.lost(now)
        if lost is None:
            return None
        return End(
            kind=EndKind.CRASHED,
            rank=0,
            reason=Reason.STALLED,
            message=f"{lost}; rank 0 was last at: {self._current.report.stage}",
        )

    async def _close(
        self, attempt: int, order_generation: int, end: End, when: datetime
    ) -> WorkerExit | None:
        """Write the attempt's record; an exit code if no attempt follows.

        Until the ledger takes it no other attempt begins, which would know of no hold. A worker
        that is told to leave tries once and no more.
        """
        if self.terminating:
            self._ended = None
        closed = await asyncio.to_thread(
            record_end, self._ledger, attempt, end, self._config, when, order_generation
        )
        self._ended = None
        reason, message = closed.reason, closed.message
        match closed.follows:
            case Follows.SUPERSEDED:
                return await self._finish(WorkerExit.SUPERSEDED, WorkerState.HELD, reason, message)
            case Follows.HELD:
                return await self._without(reason, message, _REFUSED_SECONDS)
            case Follows.HELD_FOR_ORDER if not self._config.stays_after_outcome:
                return await self._without(reason, message)  # a pod reads its hold in the ledger
            case Follows.RESTART:
                self._current.update(restarts=self._current.report.restarts + 1)
                self._show_state(WorkerState.RESTARTING, None, message)
                self._not_before = self._now() + closed.pause
        return None

    async def _finish(
        self, code: WorkerExit, state: WorkerState, reason: str | None, message: str | None
    ) -> WorkerExit:
        """Tell all workers to leave and wait until they know; returns the exit code."""
        self._current.update(stage=state.lower())
        self._show_state(state, reason, message)
        say = self._log.info if code is WorkerExit.OK else self._log.error
        say("finished", state=state, reason=reason, detail=message, exit_code=code)
        is_outcome = state in (WorkerState.SUCCEEDED, WorkerState.FAILED)
        if self._config.stays_after_outcome and not is_outcome:
            # In pods only an outcome sends the others home: a new coordinator will need them.
            self._gang.direct(Action.END)
            await self.reception.wake()
            self.left = True
            return code
        self._gang.direct(Action.DONE, exit_code=code)
        await self.reception.wake()
        deadline = self._now() + ORDERLY_SECONDS
        while self._gang.present(self._now()) - self.reception.informed and self._now() < deadline:
            await self._change(0.5)
        return code

    async def _change(self, seconds: float) -> None:
        """Return when something changed, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
