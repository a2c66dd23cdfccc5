"""Epsilons without waiting: whoever asked hears of it, whatever became of the question."""

from __future__ import annotations

import asyncio

import pytest

from dtjob_accounting import pld
from dtjob_accounting.process import HelperFailed
from dtjob_accounting.rounding import decimal_up
from dtjob_operator.kube.store import Key
from dtjob_operator.observe import epsilons as pricing
from dtjob_operator.observe.epsilons import Epsilons
from dtjob_operator.observe.spent_draws import spent_draws
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Spent
from tests.support.worlds.accounting_helpers import Broken, Slow

KEY = ("research", "digits")


def charged(draws: int) -> Json:
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": draws}
    return {
        "metadata": {"uid": "ledger"},
        "spec": {"plan": {"delta": 1e-5}},
        "status": {"segments": [segment]},
    }


def cost(draws: int) -> float:
    return pld.epsilon(2.2, 0.1, draws, 1e-5)


@pytest.mark.parametrize("error", [HelperFailed("died"), OSError("no memory"), ValueError("?")])
def test_an_epsilon_that_was_not_computed_is_asked_for_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricing, "RETRY_SECONDS", 0.05)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        begun: list[float] = []
        epsilons = Epsilons(Broken(error), told.put_nowait)  # type: ignore[arg-type]
        for _ in range(2):
            assert epsilons.spent(KEY, charged(10)) is None
            begun.append(asyncio.get_running_loop().time())
            async with asyncio.timeout(60):
                assert await told.get() == KEY
        assert begun[1] - begun[0] >= 0.05
        assert epsilons.spent(KEY, charged(10)) is not None
        epsilons.close()

    asyncio.run(scenario())


def test_a_new_job_waits_for_one_epsilon_at_most() -> None:
    """The helper answers in order, and asks for those of all jobs come at each start."""
    segment = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "draws": 10}

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        epsilons = Epsilons(helper, told.put_nowait)  # type: ignore[arg-type]
        for number in range(3):
            ledger = {
                "metadata": {"uid": f"ledger-{number}"},
                "spec": {"plan": {"delta": 1e-5}},
                "status": {"segments": [segment]},
            }
            assert epsilons.spent(KEY, ledger) is None
        for number in range(3):
            await asyncio.sleep(0.01)
            assert len(helper.asked) == number + 1
            helper.asked[-1].set_result(2.3)
            async with asyncio.timeout(60):
                await told.get()
        epsilons.close()

    asyncio.run(scenario())


def test_epsilons_that_are_told_wait_for_those_that_are_not() -> None:
    """At a start all jobs that have ended ask, and one that ends now must not wait for them."""

    async def scenario() -> None:
        helper = Slow()
        epsilons = Epsilons(helper, lambda _: None)  # type: ignore[arg-type]

        async def asked(questions: int) -> int:
            async with asyncio.timeout(60):
                while len(helper.asked) < questions:
                    await asyncio.sleep(0)
            return helper.draws[-1]

        for draws in (1, 2, 3):
            ledger = charged(draws) | {"metadata": {"uid": f"ended-{draws}"}}
            assert epsilons.spent(KEY, ledger, is_final=True) is None
        assert await asked(1) == 1
        assert epsilons.spent(KEY, charged(10)) is None
        for answered, next_draws in enumerate((10, 2, 3)):
            await asyncio.sleep(0)
            helper.asked[-1].set_result(2.3)
            assert await asked(answered + 2) == next_draws
        epsilons.close()

    asyncio.run(scenario())


def test_a_figure_is_pending_until_it_is_there_has_failed_or_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of a job waits for it, and not for ever."""
    monkeypatch.setattr(pricing, "RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        epsilons = Epsilons(helper, told.put_nowait)  # type: ignore[arg-type]

        async def answer(with_: float | HelperFailed) -> None:
            while not helper.asked or helper.asked[-1].done():
                await asyncio.sleep(0)
            if isinstance(with_, HelperFailed):
                helper.asked[-1].set_exception(with_)
            else:
                helper.asked[-1].set_result(with_)

        first, second = charged(10), charged(20)
        assert not epsilons.is_pending(first)
        assert epsilons.spent(KEY, first) is None
        assert epsilons.is_pending(first)
        await answer(2.3)
        async with asyncio.timeout(60):
            await told.get()
        assert not epsilons.is_pending(first)
        assert epsilons.spent(KEY, first) == Spent("2.3000", 10)

        assert epsilons.spent(KEY, second) == Spent("2.3000", 10)
        assert epsilons.is_pending(second)
        with monkeypatch.context() as patched:
            patched.setattr(pricing, "_PATIENCE_SECONDS", 0.0)
            assert not epsilons.is_pending(second)
        await answer(HelperFailed("died"))
        async with asyncio.timeout(60):
            await told.get()
        epsilons.spent(KEY, second)
        assert not epsilons.is_pending(second)
        await answer(3.5)
        async with asyncio.timeout(60):
            await told.get()
        assert epsilons.spent(KEY, second) == Spent("3.5000", 20)
        epsilons.close()

    asyncio.run(scenario())


@pytest.mark.rule(13)
def test_of_leases_that_follow_one_another_the_newest_alone_is_priced() -> None:
    """And until it is, a bound of all draws that are charged is known."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Slow()
        epsilons = Epsilons(helper, told.put_nowait)  # type: ignore[arg-type]
        for lease in range(11):
            ledger = charged(10 + 10 * lease)
            assert epsilons.spent(KEY, ledger) is None
            assert float(epsilons.at_most(ledger) or 0) >= cost(10 + 10 * lease)
            assert epsilons.is_pending(ledger)
            await asyncio.sleep(0.001)
        assert helper.draws == [10]
        helper.asked[0].set_result(cost(10))
        async with asyncio.timeout(60):
            while len(helper.draws) < 2:
                await asyncio.sleep(0)
        newest = charged(110)
        assert epsilons.spent(KEY, newest) == Spent(decimal_up(cost(10)), 10)
        assert float(epsilons.at_most(newest) or 0) >= cost(110)
        helper.asked[1].set_result(cost(110))
        async with asyncio.timeout(60):
            assert await told.get() == KEY
        assert helper.draws == [10, 110]
        assert epsilons.spent(KEY, newest) == Spent(decimal_up(cost(110)), 110)
        assert epsilons.at_most(newest) is None
        assert told.empty()
        epsilons.close()

    asyncio.run(scenario())


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("draws", "noise", "capped"), [(300, 2.2, True), (301, 2.2, False), (300, 2.1, False)]
)
def test_a_bound_is_what_the_plan_guarantees_of_its_own_draws_alone(
    draws: int, noise: float, capped: bool
) -> None:
    async def scenario() -> None:
        epsilons = Epsilons(Slow(), lambda _: None)  # type: ignore[arg-type]
        plan = {"noiseMultiplier": 2.2, "sampleRate": 0.1, "delta": 1e-5}
        plan |= {"steps": 280, "replayReserveSteps": 20, "epsilonGuaranteed": cost(300)}
        ledger = charged(draws) | {"spec": {"plan": plan}}
        ledger["status"]["segments"][0]["noiseMultiplier"] = noise
        bound = epsilons.at_most(ledger)
        assert bound is not None
        assert float(bound) >= pld.epsilon(noise, 0.1, draws, 1e-5)
        assert (bound == decimal_up(cost(300))) is capped
        epsilons.close()

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
    found = spent_draws(ledger)
    assert (list(found.segments) if found else None) == asked
