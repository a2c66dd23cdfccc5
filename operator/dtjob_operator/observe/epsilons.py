"""Epsilons from the helper process: asked for without waiting, answered by a later call."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from dtjob_accounting.process import PldProcess
from dtjob_accounting.rounding import decimal_up
from dtjob_accounting.upper_bound import upper_bound
from dtjob_operator.kube.store import Key
from dtjob_operator.observe.answers import RETRY_SECONDS, Answers
from dtjob_operator.observe.spent_draws import SpentDraws, guaranteed, spent_draws
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Spent

# Also of jobs that have ended: what is forgotten is computed again when next looked at. One takes
# less memory than its job does in the store.
_MAX_EPSILONS = 2**17
_PATIENCE_SECONDS = 60.0


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

    charged: SpentDraws
    computed: SpentDraws | None = None
    keys: set[Key] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    is_pausing: bool = False


class Epsilons:
    """Epsilons by ledger; one takes up to seconds, so nobody waits for it.

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
        self._spent: OrderedDict[str, tuple[SpentDraws, Spent]] = OrderedDict()
        self._pricings: dict[str, _Pricing] = {}
        # UIDs of the ledgers whose epsilon is awaited, in order, and of those of jobs that have
        # ended and whose status has it: at a start each of these asks, and each goes behind.
        self._due: OrderedDict[str, None] = OrderedDict()
        self._corrections: OrderedDict[str, None] = OrderedDict()
        self._is_pricing = False
        self._answers: Answers[SpentDraws] = Answers()

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
        if (charged := spent_draws(ledger)) is None:
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
        charged = spent_draws(ledger)
        answered, spent = self._spent.get(ledger["metadata"]["uid"], (None, None))
        if charged is None or answered == charged:
            return None
        bound = upper_bound(charged.segments, charged.delta, guaranteed(ledger, charged))
        if bound is None or spent is None:
            return bound
        return max(bound, spent.epsilon, key=Decimal)

    def is_pending(self, ledger: Json) -> bool:
        """Whether epsilon of all known draws will be there in seconds, as far as can be known.

        Not after a failure, and not for ever: an end must be reported one day.
        """
        charged, pricing = spent_draws(ledger), self._pricings.get(ledger["metadata"]["uid"])
        if charged is None or pricing is None or pricing.charged != charged:
            return False
        has_patience = time.monotonic() - pricing.since < _PATIENCE_SECONDS
        return self._answers.failure(charged) is None and has_patience

    def close(self) -> None:
        """Stop waiting for answers."""
        self._answers.close()

    def _ask(self, uid: str, charged: SpentDraws, key: Key, *, is_final: bool) -> None:
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
            self._answers.start(self._price())

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
            self._answers.failed(charged, error)
            pricing.is_pausing = True
            # What was asked for meanwhile is asked for again, by those who are called then.
            self._due.pop(uid, None)
            self._corrections.pop(uid, None)
            self._answers.start(self._pause(uid, pricing))
            return
        finally:
            pricing.computed = None
        self._answers.succeeded(charged)
        self._note_epsilon(uid, charged, epsilon)
        if pricing.charged == charged:
            del self._pricings[uid]
            for key in pricing.keys:
                self._changed(key)

    async def _pause(self, uid: str, pricing: _Pricing) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        del self._pricings[uid]
        for key in pricing.keys:
            self._changed(key)

    def _note_epsilon(self, uid: str, charged: SpentDraws, epsilon: str) -> None:
        # Each figure is a bound of its own; the larger of two is still true of the later one.
        _, before = self._spent.get(uid, (None, Spent(epsilon, 0)))
        greater = max(before.epsilon, epsilon, key=Decimal)
        self._spent[uid] = charged, Spent(greater, max(before.draws, charged.draws))
        self._spent.move_to_end(uid)
        if len(self._spent) > _MAX_EPSILONS:
            self._spent.popitem(last=False)
