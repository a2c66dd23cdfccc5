"""Privacy arithmetic without waiting: whoever asked is told, whatever became of the question."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from dtjob_accounting import pld
from dtjob_accounting.process import HelperFailed
from dtjob_accounting.rounding import decimal_up
from dtjob_api.derive import plan_request
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_operator.kube.store import Key
from dtjob_operator.observe import accounting
from dtjob_operator.observe.accounting import PrivacyFigures
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Spent
from tests.support.worlds.world import digits

KEY = ("research", "digits")
REQUEST = plan_request(DistributedTrainingJob.from_dict(digits()).spec)


class Broken:
    """A helper process that answers the first question with an error."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def noise_multiplier(self, *_: float) -> float:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return 2.2

    def epsilon(self, *_: float) -> float:
        return 7.9

    def version(self) -> str:
        return "dp-accounting 0.6"

    def submit_epsilon_of_segments(self, *_: Any) -> Future[float]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        answer: Future[float] = Future()
        answer.set_result(2.3)
        return answer


@pytest.mark.parametrize("error", [HelperFailed("died"), OSError("no memory"), ValueError("?")])
@pytest.mark.parametrize("question", ["plan", "epsilon"])
def test_a_question_without_an_answer_is_asked_again(
    error: Exception, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "_RETRY_SECONDS", 0.05)
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": 10}
    ledger = {
        "metadata": {"uid": "ledger"},
        "spec": {"plan": {"delta": 1e-5}},
        "status": {"segments": [segment]},
    }

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        begun: list[float] = []
        accounting = PrivacyFigures(Broken(error), told.put_nowait)  # type: ignore[arg-type]

        def ask() -> object:
            if question == "plan":
                return accounting.privacy_plan(KEY, REQUEST)
            return accounting.spent(KEY, ledger)

        for _ in range(2):
            assert ask() is None
            begun.append(asyncio.get_running_loop().time())
            async with asyncio.timeout(60):
                assert await told.get() == KEY
        assert begun[1] - begun[0] >= 0.05
        assert ask() is not None
        accounting.close()

    asyncio.run(scenario())


async def answered(accounting: PrivacyFigures, told: asyncio.Queue[Key]) -> object:
    assert accounting.privacy_plan(KEY, REQUEST) is None
    async with asyncio.timeout(60):
        await told.get()
    return accounting.privacy_plan(KEY, REQUEST)


class Calm(Broken):
    """A helper process that answers every question."""

    def __init__(self) -> None:
        super().__init__(OSError())
        self._error = None


@pytest.mark.parametrize("error", [HelperFailed("it was killed (SIGKILL)"), OSError("no memory")])
def test_a_calibration_without_an_answer_is_told_until_there_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        accounting = PrivacyFigures(Broken(error), told.put_nowait)  # type: ignore[arg-type]
        assert accounting.planning_trouble(REQUEST) is None
        assert await answered(accounting, told) is None
        trouble = accounting.planning_trouble(REQUEST)
        assert trouble is not None
        assert str(error) in trouble
        async with asyncio.timeout(60):
            await told.get()
        assert accounting.privacy_plan(KEY, REQUEST) is not None
        assert accounting.planning_trouble(REQUEST) is None
        accounting.close()

    asyncio.run(scenario())


class Slow(Calm):
    """A helper process that answers questions about epsilon when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Future[float]] = []
        self.draws: list[int] = []

    def submit_epsilon_of_segments(self, segments: Any, _delta: float) -> Future[float]:
        self.draws.append(segments[0][2])
        self.asked.append(Future())
        return self.asked[-1]


def test_a_new_job_waits_for_one_epsilon_at_most() -> None:
    """The helper answers in order, and asks for those of all jobs come at each start."""
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": 10}

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        accounting = PrivacyFigures(helper, told.put_nowait)  # type: ignore[arg-type]
        for number in range(3):
            ledger = {
                "metadata": {"uid": f"ledger-{number}"},
                "spec": {"plan": {"delta": 1e-5}},
                "status": {"segments": [segment]},
            }
            assert accounting.spent(KEY, ledger) is None
        for number in range(3):
            await asyncio.sleep(0.01)
            assert len(helper.asked) == number + 1
            helper.asked[-1].set_result(2.3)
            async with asyncio.timeout(60):
                await told.get()
        accounting.close()

    asyncio.run(scenario())


def test_epsilons_that_are_told_wait_for_those_that_are_not() -> None:
    """At a start all jobs that have ended ask, and one that ends now must not wait for them."""

    async def scenario() -> None:
        helper = Slow()
        accounting = PrivacyFigures(helper, lambda _: None)  # type: ignore[arg-type]

        async def asked(questions: int) -> int:
            async with asyncio.timeout(60):
                while len(helper.asked) < questions:
                    await asyncio.sleep(0)
            return helper.draws[-1]

        for draws in (1, 2, 3):
            ledger = charged(draws) | {"metadata": {"uid": f"ended-{draws}"}}
            assert accounting.spent(KEY, ledger, is_final=True) is None
        assert await asked(1) == 1
        assert accounting.spent(KEY, charged(10)) is None
        for answered, next_draws in enumerate((10, 2, 3)):
            await asyncio.sleep(0)
            helper.asked[-1].set_result(2.3)
            assert await asked(answered + 2) == next_draws
        accounting.close()

    asyncio.run(scenario())


def test_a_figure_is_pending_until_it_is_there_has_failed_or_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of a job waits for it, and not for ever."""
    monkeypatch.setattr(accounting, "_RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        accounting = PrivacyFigures(helper, told.put_nowait)  # type: ignore[arg-type]

        async def answer(with_: float | HelperFailed) -> None:
            while not helper.asked or helper.asked[-1].done():
                await asyncio.sleep(0)
            if isinstance(with_, HelperFailed):
                helper.asked[-1].set_exception(with_)
            else:
                helper.asked[-1].set_result(with_)

        first, second = charged(10), charged(20)
        assert not accounting.is_pending(first)
        assert accounting.spent(KEY, first) is None
        assert accounting.is_pending(first)
        await answer(2.3)
        async with asyncio.timeout(60):
            await told.get()
        assert not accounting.is_pending(first)
        assert accounting.spent(KEY, first) == Spent("2.3000", 10)

        assert accounting.spent(KEY, second) == Spent("2.3000", 10)
        assert accounting.is_pending(second)
        with monkeypatch.context() as patched:
            patched.setattr(f"{PrivacyFigures.__module__}._PATIENCE_SECONDS", 0.0)
            assert not accounting.is_pending(second)
        await answer(HelperFailed("died"))
        async with asyncio.timeout(60):
            await told.get()
        accounting.spent(KEY, second)
        assert not accounting.is_pending(second)
        await answer(3.5)
        async with asyncio.timeout(60):
            await told.get()
        assert accounting.spent(KEY, second) == Spent("3.5000", 20)
        accounting.close()

    asyncio.run(scenario())


def charged(draws: int) -> Json:
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": draws}
    return {
        "metadata": {"uid": "ledger"},
        "spec": {"plan": {"delta": 1e-5}},
        "status": {"segments": [segment]},
    }


@pytest.mark.rule(13)
def test_of_leases_that_follow_one_another_the_newest_alone_is_priced() -> None:
    """And until it is, a bound of all draws that are charged is known."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        accounting = PrivacyFigures(helper, told.put_nowait)  # type: ignore[arg-type]
        for lease in range(11):
            ledger = charged(10 + 10 * lease)
            assert accounting.spent(KEY, ledger) is None
            assert float(accounting.at_most(ledger) or 0) >= cost(10 + 10 * lease)
            assert accounting.is_pending(ledger)
            await asyncio.sleep(0.001)
        assert helper.draws == [10]
        helper.asked[0].set_result(cost(10))
        async with asyncio.timeout(60):
            while len(helper.draws) < 2:
                await asyncio.sleep(0)
        newest = charged(110)
        assert accounting.spent(KEY, newest) == Spent(decimal_up(cost(10)), 10)
        assert float(accounting.at_most(newest) or 0) >= cost(110)
        helper.asked[1].set_result(cost(110))
        async with asyncio.timeout(60):
            assert await told.get() == KEY
        assert helper.draws == [10, 110]
        assert accounting.spent(KEY, newest) == Spent(decimal_up(cost(110)), 110)
        assert accounting.at_most(newest) is None
        assert told.empty()
        accounting.close()

    asyncio.run(scenario())


def cost(draws: int) -> float:
    return pld.epsilon(2.2, 0.1, draws, 1e-5)


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("draws", "noise", "capped"), [(300, 2.2, True), (301, 2.2, False), (300, 2.1, False)]
)
def test_a_bound_is_what_the_plan_guarantees_of_its_own_draws_alone(
    draws: int, noise: float, capped: bool
) -> None:
    async def scenario() -> None:
        accounting = PrivacyFigures(Slow(), lambda _: None)  # type: ignore[arg-type]
        plan = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "delta": 1e-5}
        plan |= {"steps": 280, "replayReserveSteps": 20, "epsilonGuaranteed": cost(300)}
        ledger = charged(draws) | {"spec": {"plan": plan}}
        ledger["status"]["segments"][0]["noiseMultiplier"] = noise
        bound = accounting.at_most(ledger)
        assert bound is not None
        assert float(bound) >= pld.epsilon(noise, 0.1, draws, 1e-5)
        assert (bound == decimal_up(cost(300))) is capped
        accounting.close()

    asyncio.run(scenario())


def test_plans_wait_in_a_line_of_their_own() -> None:
    """kopf takes turns in the loop's own executor, and its watches must not wait for plans."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Held()
        accounting = PrivacyFigures(helper, told.put_nowait)  # type: ignore[arg-type]
        wanted = [replace(REQUEST, steps=300 + number) for number in range(60)]
        for request in wanted:
            assert accounting.privacy_plan(KEY, request) is None
        assert [accounting.plans_before(each) for each in wanted] == list(range(60))
        async with asyncio.timeout(60):
            while not helper.asked:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(lambda: None)
        assert helper.asked == [300 + 30]
        helper.goes_on.set()
        async with asyncio.timeout(60):
            for _ in wanted:
                await told.get()
        assert [accounting.plans_before(each) for each in wanted] == [0] * 60
        plan = accounting.privacy_plan(KEY, replace(REQUEST, steps=359))
        assert isinstance(plan, PrivacyPlan)
        assert len(helper.asked) == 60
        accounting.close()

    asyncio.run(scenario())


class Held(Calm):
    """A helper process that answers when it is let.

    Attributes
    ----------
    asked
        Draws of the plans that were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.goes_on = threading.Event()

    def noise_multiplier(self, *of: float) -> float:
        self.asked.append(int(of[3]))
        assert self.goes_on.wait(60)
        return 2.2


def test_jobs_that_ask_for_the_same_plan_share_it() -> None:
    """Epochs are steps, and a field that holds its default is none: the request is what counts."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        accounting = PrivacyFigures(Calm(), told.put_nowait)  # type: ignore[arg-type]
        await answered(accounting, told)
        training = digits()["spec"]["training"] | {"args": {"lr": 0.3}}
        other = digits(training=training, checkpoint={"keep": 5})
        request = plan_request(DistributedTrainingJob.from_dict(other).spec)
        assert isinstance(accounting.privacy_plan(("research", "other"), request), PrivacyPlan)
        accounting.close()

    asyncio.run(scenario())


@pytest.mark.rule(11, 13)
@pytest.mark.parametrize(
    ("segments", "proven", "asked"),
    [
        ([20], 300, [(2.2, 0.1, 20), (2.2, 0.1, 280)]),
        ([20], 20, [(2.2, 0.1, 20)]),
        ([330], 300, [(2.2, 0.1, 330)]),
        ([], 300, [(2.2, 0.1, 300)]),
        ([], 0, None),
    ],
)
def test_epsilon_is_of_all_draws_that_the_volume_proves(
    segments: list[int], proven: int, asked: list[tuple[float, float, int]] | None
) -> None:
    """Also before the ledger, which was found behind its volume, is raised."""
    rates = {"noiseMultiplier": 2.2, "sampleRate": 0.1}
    status = {
        "charged": sum(segments),
        "segments": [rates | {"draws": draws} for draws in segments],
        "volume": {"attempt": 1, "charged": proven},
    }
    plan = {"delta": 1e-5} | rates
    ledger = {"metadata": {"uid": "ledger"}, "spec": {"plan": plan}, "status": status}
    found = accounting._charged(ledger)
    assert (list(found.segments) if found else None) == asked
