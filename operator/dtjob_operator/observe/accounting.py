"""Privacy arithmetic for reconciliation: asked without waiting, answered by a later call."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog

from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import Segment
from dtjob_accounting.plan import PlanRequest, make_plan
from dtjob_accounting.process import HelperFailed, PldProcess
from dtjob_accounting.rounding import decimal_up
from dtjob_accounting.upper_bound import upper_bound
from dtjob_api.derive import frozen_plan
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_api.ledger.proven import proven_draws
from dtjob_operator.kube.store import Key
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Spent

_MAX_PLANS = 4096
# Epsilons, also of jobs that have ended: what is forgotten is computed again when next looked at.
# One takes less memory than its job does in the store.
_MAX_EPSILONS = 2**17
_RETRY_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0
_MAX_FAILURE = 500

Answer = PrivacyPlan | PlanError


class PrivacyFigures:
    """Plans and epsilons from the helper process; they take seconds, so nobody waits for them.

    Parameters
    ----------
    process
        The warm helper process.
    changed
        Called with the key of each job that asked, as soon as the answer is there.
    """

    def __init__(self, process: PldProcess, changed: Callable[[Key], None]) -> None:
        self._process = process
        self._changed = changed
        self._plans: OrderedDict[PlanRequest, Answer] = OrderedDict()
        self._calibrations: dict[PlanRequest, _Calibration] = {}
        # Calibrations that were asked for and have come to an end, in the same order.
        self._begun = self._ended = 0
        # One thread: the helper computes one thing at a time, so more would only wait for it, and
        # those of the loop's own executor are kopf's too, which must not wait for plans.
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._spent: OrderedDict[str, tuple[_Charged, Spent]] = OrderedDict()
        self._pricings: dict[str, _Pricing] = {}
        # UIDs of the ledgers whose epsilon is awaited, in order, and of those of jobs that have
        # ended and whose status has it: at a start each of these asks, and each goes behind.
        self._due: OrderedDict[str, None] = OrderedDict()
        self._corrections: OrderedDict[str, None] = OrderedDict()
        self._is_pricing = False
        self._failures: OrderedDict[PlanRequest | _Charged, str] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("accounting")

    def privacy_plan(self, key: Key, request: PlanRequest) -> Answer | None:
        """The plan made from a request, why there can't be one, or None while it is made (Rule 9).

        Jobs whose requests are equal share one computation.
        """
        if request in self._plans:
            self._plans.move_to_end(request)
            return self._plans[request]
        if request not in self._calibrations:
            self._begun += 1
            self._calibrations[request] = _Calibration(self._begun)
            self._start(self._calibrate(request))
        self._calibrations[request].keys.add(key)
        return None

    def planning_trouble(self, request: PlanRequest) -> str | None:
        """Why the last computation of a plan gave no answer; None where none has failed."""
        return self._failures.get(request)

    def plans_before(self, request: PlanRequest) -> int:
        """How many plans are made before this one; 0 where it is made now, or not awaited."""
        calibration = self._calibrations.get(request)
        if calibration is None or calibration.has_failed:
            return 0
        return calibration.number - self._ended - 1

    def spent(self, key: Key, ledger: Json, *, is_final: bool = False) -> Spent | None:
        """Epsilon of all draws known to be spent, rounded up to four decimals (Rules 13 and 23).

        None where nothing is spent or there is no privacy. While a new figure is computed the
        one before is returned, with the number of its draws.

        Parameters
        ----------
        is_final
            The job has ended and its status has this figure: it is computed only to correct that,
            after all others.
        """
        if (charged := _charged(ledger)) is None:
            return None
        uid = ledger["metadata"]["uid"]
        answered, spent = self._spent.get(uid, (None, None))
        if answered != charged:
            self._ask(uid, charged, key, is_final=is_final)
        return spent

    def at_most(self, ledger: Json) -> str | None:
        """A bound of epsilon of all draws known to be spent, while `spent` is of fewer (Rule 13).

        It needs no helper, and is larger by a tenth or so. None where `spent` is of all draws,
        where nothing is spent, and where there is no privacy.
        """
        charged = _charged(ledger)
        answered, spent = self._spent.get(ledger["metadata"]["uid"], (None, None))
        if charged is None or answered == charged:
            return None
        bound = upper_bound(charged.segments, charged.delta, _guaranteed(ledger, charged))
        if bound is None or spent is None:
            return bound
        return max(bound, spent.epsilon, key=Decimal)

    def is_pending(self, ledger: Json) -> bool:
        """Whether epsilon of all known draws will be there in seconds, as far as can be known.

        Not after a failure, and not for ever: an end must be reported one day.
        """
        charged, pricing = _charged(ledger), self._pricings.get(ledger["metadata"]["uid"])
        if charged is None or pricing is None or pricing.charged != charged:
            return False
        has_patience = time.monotonic() - pricing.since < _PATIENCE_SECONDS
        return charged not in self._failures and has_patience

    def close(self) -> None:
        """Stop waiting for answers."""
        for task in self._tasks:
            task.cancel()
        self._planner.shutdown(wait=False, cancel_futures=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _calibrate(self, request: PlanRequest) -> None:
        """Make a plan, then have all who asked ask again; after a pause where there is none."""
        loop = asyncio.get_running_loop()
        calibration = self._calibrations[request]
        try:
            try:
                plan = await loop.run_in_executor(self._planner, make_plan, request, self._process)
                self._plans[request] = frozen_plan(plan)
            except PlanError as refusal:
                self._plans[request] = refusal
            self._failures.pop(request, None)
            if len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        except Exception as error:
            self._note_failure(request, error)
            calibration.has_failed = True
        finally:
            self._ended += 1
        if calibration.has_failed:
            await asyncio.sleep(_RETRY_SECONDS)
        del self._calibrations[request]
        for key in calibration.keys:
            self._changed(key)

    def _ask(self, uid: str, charged: _Charged, key: Key, *, is_final: bool) -> None:
        """Have the epsilon of a ledger computed: of its newest draws alone, whatever was asked."""
        pricing = self._pricings.get(uid)
        if pricing is None:
            pricing = self._pricings[uid] = _Pricing(charged)
        elif pricing.charged != charged:
            pricing.charged, pricing.since = charged, time.monotonic()
        pricing.keys.add(key)
        if pricing.is_pausing or pricing.computed == charged:
            return
        if not is_final:
            self._corrections.pop(uid, None)
            self._due[uid] = None
        elif uid not in self._due:
            self._corrections[uid] = None
        if not self._is_pricing:
            self._is_pricing = True
            self._start(self._price())

    async def _price(self) -> None:
        """Compute epsilons, one at a time: so a plan waits for one at most, not for those of all.

        The helper answers in order.
        """
        try:
            while self._due or self._corrections:
                uid, _ = (self._due or self._corrections).popitem(last=False)
                await self._compute(uid, self._pricings[uid])
        finally:
            self._is_pricing = False

    async def _compute(self, uid: str, pricing: _Pricing) -> None:
        """Compute one epsilon, of the newest draws that were asked for."""
        charged = pricing.computed = pricing.charged
        try:
            asked = self._process.submit_epsilon_of_segments(charged.segments, charged.delta)
            epsilon = decimal_up(await asyncio.wrap_future(asked))
        except Exception as error:
            self._note_failure(charged, error)
            pricing.is_pausing = True
            # What was asked for meanwhile is asked for again, by those who are called then.
            self._due.pop(uid, None)
            self._corrections.pop(uid, None)
            self._start(self._pause(uid, pricing))
            return
        finally:
            pricing.computed = None
        self._failures.pop(charged, None)
        self._note_epsilon(uid, charged, epsilon)
        if pricing.charged == charged:
            del self._pricings[uid]
            for key in pricing.keys:
                self._changed(key)

    async def _pause(self, uid: str, pricing: _Pricing) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        del self._pricings[uid]
        for key in pricing.keys:
            self._changed(key)

    def _note_epsilon(self, uid: str, charged: _Charged, epsilon: str) -> None:
        # Each figure is a bound of its own; the larger of two is still true of the later one.
        _, before = self._spent.get(uid, (None, Spent(epsilon, 0)))
        greater = max(before.epsilon, epsilon, key=Decimal)
        self._spent[uid] = charged, Spent(greater, max(before.draws, charged.draws))
        self._spent.move_to_end(uid)
        if len(self._spent) > _MAX_EPSILONS:
            self._spent.popitem(last=False)

    def _note_failure(self, question: PlanRequest | _Charged, error: Exception) -> None:
        """Keep what went wrong, for the status."""
        if isinstance(error, HelperFailed):
            self._log.error("the accounting helper gave no answer", error=str(error))
            why = str(error)
        else:
            self._log.error("the privacy arithmetic failed", exc_info=error)
            why = f"{type(error).__name__}: {error}"
        self._failures[question] = why[:_MAX_FAILURE]
        self._failures.move_to_end(question)
        if len(self._failures) > _MAX_PLANS:
            self._failures.popitem(last=False)


@dataclass
class _Calibration:
    """A plan that is awaited: who asked for it, and the how many-th it is."""

    number: int
    keys: set[Key] = field(default_factory=set)
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class _Charged:
    """The draws of a ledger whose epsilon is asked for."""

    segments: tuple[Segment, ...]
    delta: float

    @property
    def draws(self) -> int:
        return sum(draws for _, _, draws in self.segments)


@dataclass
class _Pricing:
    """The epsilon of a ledger that is awaited.

    Attributes
    ----------
    charged
        The newest draws that were asked for.
    computed
        Those whose epsilon is being computed, maybe fewer.
    since
        When the newest were first asked for, in monotonic time.
    """

    charged: _Charged
    computed: _Charged | None = None
    keys: set[Key] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    is_pausing: bool = False


def _charged(ledger: Json) -> _Charged | None:
    """What is spent with privacy; None where nothing is.

    Draws that the checkpoint volume proves and the ledger has not charged (Rule 11) are spent as
    well, before anybody raises the ledger: under the plan, since no draw was made with others.
    """
    plan, status = ledger["spec"]["plan"], ledger.get("status", {})
    delta = plan.get("delta")
    segments = [
        (segment["noiseMultiplier"], segment["sampleRate"], segment["draws"])
        for segment in status.get("segments", ())
        if segment["draws"] and "noiseMultiplier" in segment and "sampleRate" in segment
    ]
    beyond = proven_draws(status) - sum(draws for _, _, draws in segments)
    if beyond > 0 and "noiseMultiplier" in plan and "sampleRate" in plan:
        segments.append((plan["noiseMultiplier"], plan["sampleRate"], beyond))
    if delta is None or not segments:
        return None
    return _Charged(tuple(segments), delta)


def _guaranteed(ledger: Json, charged: _Charged) -> float | None:
    """What the plan guarantees of all reserved draws; None where others were made, or more."""
    plan = ledger["spec"]["plan"]
    planned = plan.get("noiseMultiplier"), plan.get("sampleRate")
    if any((sigma, rate) != planned for sigma, rate, _ in charged.segments):
        return None
    reserved = plan.get("steps", 0) + plan.get("replayReserveSteps", 0)
    return plan.get("epsilonGuaranteed") if charged.draws <= reserved else None
