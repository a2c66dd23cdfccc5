"""Privacy arithmetic for reconciliation: asked without waiting, answered by a later call."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal

import structlog
from pydantic import ValidationError

from dtjob_accounting.errors import PlanError
from dtjob_accounting.plan import make_plan
from dtjob_accounting.process import HelperFailed, PldProcess
from dtjob_accounting.rounding import decimal_up
from dtjob_api.derive import frozen_plan, plan_request
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
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
        self._plans: OrderedDict[str, Answer] = OrderedDict()
        self._spent: OrderedDict[str, tuple[str, Spent]] = OrderedDict()
        self._failures: OrderedDict[str, str] = OrderedDict()
        self._asking: dict[str, set[Key]] = {}
        self._since: dict[str, float] = {}
        # The helper answers in order: a plan is to wait for one epsilon at most, not for those of
        # all jobs.
        self._epsilon_turn = asyncio.Semaphore(1)
        # At a start each job that has ended asks: at most one of these goes before another.
        self._correction_turn = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("accounting")

    def privacy_plan(self, key: Key, job: Json) -> Answer | None:
        """The privacy plan of a job, why there can't be one, or None while it is computed (Rule 9).

        Jobs that agree in all that the plan depends on share one computation. A job that can't be
        read has no plan: its status says so already, and another version may read it.
        """
        question = _plan_question(job)
        if question in self._plans:
            self._plans.move_to_end(question)
            return self._plans[question]
        try:
            # What a status holds, maybe of another version, is nothing that a plan depends on.
            readable = DistributedTrainingJob.from_dict({**job, "status": None})
        except ValidationError:
            return None
        self._ask(question, key, self._compute_plan, readable)
        return None

    def planning_trouble(self, job: Json) -> str | None:
        """Why the last computation of a job's plan gave no answer; None where none has failed."""
        return self._failures.get(_plan_question(job))

    def spent(self, key: Key, ledger: Json, *, is_final: bool = False) -> Spent | None:
        """Epsilon of all draws known to be spent, rounded up to four decimals (Rules 13 and 23).

        None where nothing is spent or there is no privacy. While a new figure is computed the
        one before is returned: epsilon only grows, so it is late but never taken back.

        Parameters
        ----------
        is_final
            The job has ended and its status has this figure: it is computed only to correct that,
            after all others.
        """
        if (asked := _charged(ledger)) is None:
            return None
        answered, spent = self._spent.get(asked.uid, ("", None))
        if answered != asked.question:
            self._ask(asked.question, key, self._compute_epsilon, asked, is_final)
        return spent

    def is_pending(self, ledger: Json) -> bool:
        """Whether epsilon of all known draws will be there in seconds, as far as can be known.

        Not after a failure, and not for ever: an end must be reported one day.
        """
        asked = _charged(ledger)
        if asked is None or asked.question in self._failures:
            return False
        since = self._since.get(asked.question)
        return since is not None and time.monotonic() - since < _PATIENCE_SECONDS

    def close(self) -> None:
        """Stop waiting for answers."""
        for task in self._tasks:
            task.cancel()

    def _ask(
        self,
        question: str,
        key: Key,
        compute: Callable[..., Coroutine[None, None, None]],
        *arguments: object,
    ) -> None:
        """Compute an answer once, whoever asks for it meanwhile."""
        if question in self._asking:
            self._asking[question].add(key)
            return
        self._asking[question] = {key}
        self._since[question] = time.monotonic()
        task = asyncio.create_task(self._answer(question, compute(question, *arguments)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: str, computation: Coroutine[None, None, None]) -> None:
        """Compute, then have all who asked ask again; after a pause where there is no answer."""
        try:
            await computation
            self._failures.pop(question, None)
        except HelperFailed as error:
            self._log.error("the accounting helper gave no answer", error=str(error))
            await self._note_failure(question, str(error))
        except Exception as error:
            self._log.exception("the privacy arithmetic failed")
            await self._note_failure(question, f"{type(error).__name__}: {error}")
        finally:
            del self._since[question]
            for key in self._asking.pop(question):
                self._changed(key)

    async def _note_failure(self, question: str, why: str) -> None:
        """Keep what went wrong for the status, and pause."""
        self._failures[question] = why[:_MAX_FAILURE]
        self._failures.move_to_end(question)
        if len(self._failures) > _MAX_PLANS:
            self._failures.popitem(last=False)
        await asyncio.sleep(_RETRY_SECONDS)

    async def _compute_plan(self, question: str, job: DistributedTrainingJob) -> None:
        self._plans[question] = await self._planned(job)
        if len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)

    async def _planned(self, job: DistributedTrainingJob) -> Answer:
        try:
            plan = await asyncio.to_thread(make_plan, plan_request(job.spec), self._process)
        except PlanError as error:
            return error
        return frozen_plan(plan)

    async def _compute_epsilon(self, question: str, charged: _Charged, is_final: bool) -> None:
        async with self._correction_turn if is_final else nullcontext(), self._epsilon_turn:
            asked = self._process.submit_epsilon_of_segments(charged.segments, charged.delta)
            epsilon = decimal_up(await asyncio.wrap_future(asked))
        # Each figure is a bound of its own; the larger of two is still true of the later one.
        _, before = self._spent.get(charged.uid, ("", Spent(epsilon, 0)))
        greater = max(before.epsilon, epsilon, key=Decimal)
        self._spent[charged.uid] = question, Spent(greater, max(before.draws, charged.draws))
        self._spent.move_to_end(charged.uid)
        if len(self._spent) > _MAX_EPSILONS:
            self._spent.popitem(last=False)


@dataclass(frozen=True)
class _Charged:
    """The draws of a ledger whose epsilon is asked for."""

    uid: str
    segments: list[tuple[float, float, int]]
    delta: float

    @property
    def draws(self) -> int:
        return sum(draws for _, _, draws in self.segments)

    @property
    def question(self) -> str:
        return json.dumps([self.uid, self.segments, self.delta])


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
    return _Charged(ledger["metadata"]["uid"], segments, delta)


def _plan_question(job: Json) -> str:
    """All that a job's plan depends on."""
    parts = ("privacy", "training", "checkpoint")
    return json.dumps([job["spec"].get(part) for part in parts], sort_keys=True)
