"""Plans from the helper process: asked for without waiting, answered by a later call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dtjob_accounting.errors import PlanError
from dtjob_accounting.plan import PlanRequest, make_plan
from dtjob_accounting.process import PldProcess
from dtjob_api.derive import frozen_plan
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_operator.kube.store import Key
from dtjob_operator.observe.answers import RETRY_SECONDS, Answers

_MAX_PLANS = 4096

Plan = PrivacyPlan | PlanError


@dataclass
class _Calibration:
    """A plan that is awaited: who asked for it, and the how many-th it is."""

    number: int
    keys: set[Key] = field(default_factory=set)
    has_failed: bool = False


class Plans:
    """Plans by the request that each is made from; one takes seconds, so nobody waits for it.

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
        self._plans: OrderedDict[PlanRequest, Plan] = OrderedDict()
        self._calibrations: dict[PlanRequest, _Calibration] = {}
        # Calibrations that were asked for and have come to an end, in the same order.
        self._begun = self._ended = 0
        # One thread: the helper computes one thing at a time, so more would only wait for it, and
        # those of the loop's own executor are kopf's too, which must not wait for plans.
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._answers: Answers[PlanRequest] = Answers()

    def plan(self, key: Key, request: PlanRequest) -> Plan | None:
        """The plan made from a request, why there can't be one, or None while it is made (Rule 9).

        Jobs whose requests are equal share one computation.
        """
        if request in self._plans:
            self._plans.move_to_end(request)
            return self._plans[request]
        if request not in self._calibrations:
            self._begun += 1
            self._calibrations[request] = _Calibration(self._begun)
            self._answers.start(self._calibrate(request))
        self._calibrations[request].keys.add(key)
        return None

    def trouble(self, request: PlanRequest) -> str | None:
        """Why the last computation of a plan gave no answer; None where none has failed."""
        return self._answers.failure(request)

    def before(self, request: PlanRequest) -> int:
        """How many plans are made before this one; 0 where it is made now, or not awaited."""
        calibration = self._calibrations.get(request)
        if calibration is None or calibration.has_failed:
            return 0
        return calibration.number - self._ended - 1

    def close(self) -> None:
        """Stop waiting for answers."""
        self._answers.close()
        self._planner.shutdown(wait=False, cancel_futures=True)

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
            self._answers.succeeded(request)
            if len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        except Exception as error:
            self._answers.failed(request, error)
            calibration.has_failed = True
        finally:
            self._ended += 1
        if calibration.has_failed:
            await asyncio.sleep(RETRY_SECONDS)
        del self._calibrations[request]
        for key in calibration.keys:
            self._changed(key)
