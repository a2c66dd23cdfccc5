"""Epsilon beside the charged draws: never of fewer of them, never lower than before (Rule 13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
import structlog

from dtjob_accounting import pld, rdp
from dtjob_accounting.errors import PlanError
from dtjob_accounting.process import HelperFailed
from dtjob_accounting.upper_bound import upper_bound
from dtjob_api.wire.pipe import Epsilon, Spending
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.worker import pricing
from dtjob_trainer.worker.pricing import Pricing
from tests.support.builders import new_ledger, tiny_plan

DELTA = 1e-5


def spending(charged: int, noise_multiplier: float = 2.0) -> Spending:
    return Spending([(noise_multiplier, 0.18, charged)], DELTA, guaranteed=None)


def bound(charged: int) -> str:
    found = upper_bound([(2.0, 0.18, charged)], DELTA)
    assert found is not None
    return found


class Helper:
    """Answers with what it is given, in this order: an epsilon, a failure, or either later."""

    def __init__(self, *answers: float | Exception | Future[float]) -> None:
        self._answers = iter(answers)
        self.asked: list[int] = []

    def submit_epsilon_of_segments(self, asked: Any, _delta: float) -> Future[float]:
        self.asked.append(asked[0][2])
        match next(self._answers):
            case Future() as later:
                return later
            case Exception() as error:
                answer = pending()
                answer.set_exception(error)
            case epsilon:
                answer = pending()
                answer.set_result(epsilon)
        return answer

    def close(self) -> None:
        pass


def pending() -> Future[float]:
    answer: Future[float] = Future()
    answer.set_running_or_notify_cancel()
    return answer


class Desk:
    """Supervisor 0 as far as epsilon goes; every pair that it ever showed is checked."""

    def __init__(self, helper: Helper) -> None:
        self.current = CurrentView(position=0, job_uid="5ac7f6f2")
        self.received: list[Epsilon] = []
        self.pricing = Pricing(
            self.current, structlog.get_logger(), self.received.append, lambda: helper
        )
        self.pricing.warm_up()

    def charge(self, charged: int, attempt: int = 1) -> None:
        self.pricing.charge(attempt, charged, spending(charged))

    def shown(self) -> tuple[int, str | None]:
        return self.current.report.charged, self.current.report.epsilon_spent


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def sent(charged: int, value: str) -> Epsilon:
    return Epsilon(charged, value)


@pytest.mark.rule(13)
def test_pair_before_stays_until_the_figure_comes() -> None:
    """The figures of a normal run: no bound, and no epsilon of fewer draws than stand beside it."""

    async def scene() -> None:
        later = pending()
        desk = Desk(Helper(1.25, later))
        desk.charge(8)
        assert desk.shown() == (8, None)
        await settle()
        assert desk.shown() == (8, "1.2500")
        desk.charge(16)
        await settle()
        assert desk.shown() == (8, "1.2500")
        later.set_result(1.5)
        await settle()
        assert desk.shown() == (16, "1.5000")
        assert desk.received == [sent(8, "1.2500"), sent(16, "1.5000")]

    play(scene)


def test_repeated_messages_ask_once() -> None:
    """The coordinator says the same five times a second."""

    async def scene() -> None:
        helper = Helper(1.25)
        desk = Desk(helper)
        for _ in range(50):
            desk.charge(8)
            await asyncio.sleep(0)
        await settle()
        assert helper.asked == [8]
        assert desk.received == [sent(8, "1.2500")]

    play(scene)


@pytest.mark.rule(13)
def test_a_figure_stands_beside_its_own_draws_while_newer_ones_are_computed() -> None:
    async def scene() -> None:
        first, second = pending(), pending()
        desk = Desk(Helper(first, second))
        desk.charge(8)
        await settle()
        desk.charge(16)
        first.set_result(1.25)
        await settle()
        assert desk.shown() == (8, "1.2500")
        second.set_result(1.5)
        await settle()
        assert desk.shown() == (16, "1.5000")

    play(scene)


@pytest.mark.rule(13)
def test_a_ledger_with_more_draws_takes_the_epsilon_of_fewer_away() -> None:
    desk = Desk(Helper())
    desk.current.update(charged=8, epsilon_spent="1.2500")
    desk.current.show(new_ledger(tiny_plan(), charged=8))
    assert desk.shown() == (8, "1.2500")
    desk.current.show(new_ledger(tiny_plan(), charged=9))
    assert desk.shown() == (9, None)


def test_slow_helper_is_asked_for_the_newest_only() -> None:
    async def scene() -> None:
        first = pending()
        helper = Helper(first, 2.5)
        desk = Desk(helper)
        for charged in (8, 16, 24, 32):
            desk.charge(charged)
            await settle()
        first.set_result(1.25)
        await settle()
        assert helper.asked == [8, 32]
        assert desk.shown() == (32, "2.5000")

    play(scene)


@pytest.mark.rule(13)
def test_late_figure_is_replaced_by_the_bound_and_never_lowers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pricing, "_LATE_SECONDS", 0.02)

    async def scene() -> None:
        later = pending()
        desk = Desk(Helper(1.25, *[later] * 50))
        desk.charge(8)
        await settle()
        desk.charge(16)
        await asyncio.sleep(0.1)
        assert desk.shown() == (16, bound(16))
        later.set_result(1.5)
        await settle()
        assert desk.shown() == (16, bound(16))
        assert desk.received[-1] == sent(16, "1.5000"), "the result has the better figure"

    play(scene)


def test_helper_that_fails_gives_the_bound_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is charged goes on, and epsilon with it."""
    monkeypatch.setattr(pricing, "_AGAIN_SECONDS", 0.05)

    async def scene() -> None:
        later = pending()
        desk = Desk(Helper(1.25, HelperFailed("no memory"), later))
        desk.charge(8)
        await settle()
        desk.charge(16)
        await settle()
        assert desk.shown() == (16, bound(16))
        assert desk.received == [sent(8, "1.2500")]
        later.set_result(5.0)
        async with asyncio.timeout(10):
            while desk.shown() != (16, "5.0000"):
                await asyncio.sleep(0.01)
        assert desk.received[-1] == sent(16, "5.0000")

    play(scene)


def test_helper_that_can_not_be_started_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_AGAIN_SECONDS", 0.05)
    there: list[Helper] = []

    def start() -> Helper:
        if not there:
            raise HelperFailed("no processes left")
        return there[0]

    async def scene() -> None:
        current = CurrentView(position=0, job_uid="5ac7f6f2")
        mine = Pricing(current, structlog.get_logger(), lambda _: None, start)
        mine.warm_up()
        mine.charge(1, 8, spending(8))
        await settle()
        assert current.report.epsilon_spent == bound(8)
        there.append(Helper(9.0))
        async with asyncio.timeout(60):
            while current.report.epsilon_spent != "9.0000":
                await asyncio.sleep(0.01)

    play(scene)


def test_lower_figure_of_more_draws_is_not_shown() -> None:
    """At extreme T/δ the noise of the FFT exceeds what a draw adds."""

    async def scene() -> None:
        desk = Desk(Helper(1.25, 1.2499))
        for charged in (8, 9):
            desk.charge(charged)
            await settle()
        assert desk.shown() == (9, "1.2500")

    play(scene)


@pytest.mark.rule(13)
def test_figure_of_fewer_draws_than_the_ledger_has_is_not_shown() -> None:
    async def scene() -> None:
        later = pending()
        desk = Desk(Helper(later))
        desk.charge(8)
        await settle()
        desk.current.update(charged=24)  # the leader read the ledger
        later.set_result(1.25)
        await settle()
        assert desk.shown() == (24, None)

    play(scene)


@pytest.mark.rule(13)
def test_every_attempt_gets_epsilon_of_what_another_charged() -> None:
    async def scene() -> None:
        desk = Desk(Helper(1.25, 1.25))
        for attempt in (1, 2):
            for _ in range(3):
                desk.charge(8, attempt)
                await settle()
            assert desk.received == [sent(8, "1.2500")] * attempt

    play(scene)


def test_what_no_accountant_takes_has_no_epsilon() -> None:
    async def scene() -> None:
        desk = Desk(Helper(PlanError("spec.privacy.noiseMultiplier", 0.01, "is too small")))
        desk.pricing.charge(1, 8, spending(8, noise_multiplier=0.01))
        await settle()
        assert desk.shown() == (8, None)

    play(scene)


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("sigma", "rate", "draws", "delta"),
    [
        (2.203, 0.178, 366, 1e-5),
        (0.6, 0.001, 5000, 1e-9),
        (0.4, 0.001, 1000, 1e-5),
        (9, 1, 50, 1e-6),
    ],
)
def test_bound_is_one(sigma: float, rate: float, draws: int, delta: float) -> None:
    exact = pld.epsilon(sigma, rate, draws, delta)
    found = float(upper_bound([(sigma, rate, draws)], delta) or 0)
    assert exact <= found <= 2 * exact + 0.5
    # With half of δ for the ends of the noise, and for overflow.
    assert (
        found >= rdp.epsilon(sigma, rate, draws, delta / 2) > rdp.epsilon(sigma, rate, draws, delta)
    )


def test_bound_is_at_most_what_the_plan_guarantees() -> None:
    assert upper_bound([(2.203, 0.178, 336)], 1e-5, 8.0) == "8.0000"
    assert upper_bound([(2.203, 0.178, 3)], 1e-5, 8.0) == upper_bound([(2.203, 0.178, 3)], 1e-5)
