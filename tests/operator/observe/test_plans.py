"""Plans without waiting: whoever asked hears of it, whatever became of the question."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dtjob_accounting.process import HelperFailed
from dtjob_api.derive import plan_request
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_operator.kube.store import Key
from dtjob_operator.observe import plans as planning
from dtjob_operator.observe.plans import Plans
from tests.support.worlds.accounting_helpers import Broken, Calm, Held
from tests.support.worlds.world import digits

KEY = ("research", "digits")
REQUEST = plan_request(DistributedTrainingJob.from_dict(digits()).spec)


@pytest.mark.parametrize("error", [HelperFailed("died"), OSError("no memory"), ValueError("?")])
def test_a_plan_that_was_not_made_is_asked_for_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "RETRY_SECONDS", 0.05)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        begun: list[float] = []
        plans = Plans(Broken(error), told.put_nowait)  # type: ignore[arg-type]
        for _ in range(2):
            assert plans.plan(KEY, REQUEST) is None
            begun.append(asyncio.get_running_loop().time())
            async with asyncio.timeout(60):
                assert await told.get() == KEY
        assert begun[1] - begun[0] >= 0.05
        assert plans.plan(KEY, REQUEST) is not None
        plans.close()

    asyncio.run(scenario())


async def answered(plans: Plans, told: asyncio.Queue[Key]) -> object:
    assert plans.plan(KEY, REQUEST) is None
    async with asyncio.timeout(60):
        await told.get()
    return plans.plan(KEY, REQUEST)


@pytest.mark.parametrize("error", [HelperFailed("it was killed (SIGKILL)"), OSError("no memory")])
def test_a_calibration_without_an_answer_is_told_until_there_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        plans = Plans(Broken(error), told.put_nowait)  # type: ignore[arg-type]
        assert plans.trouble(REQUEST) is None
        assert await answered(plans, told) is None
        trouble = plans.trouble(REQUEST)
        assert trouble is not None
        assert str(error) in trouble
        async with asyncio.timeout(60):
            await told.get()
        assert plans.plan(KEY, REQUEST) is not None
        assert plans.trouble(REQUEST) is None
        plans.close()

    asyncio.run(scenario())


def test_plans_wait_in_a_line_of_their_own() -> None:
    """kopf takes turns in the loop's own executor, and its watches must not wait for plans."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        helper = Held()
        plans = Plans(helper, told.put_nowait)  # type: ignore[arg-type]
        wanted = [replace(REQUEST, steps=300 + number) for number in range(60)]
        for request in wanted:
            assert plans.plan(KEY, request) is None
        assert [plans.before(each) for each in wanted] == list(range(60))
        async with asyncio.timeout(60):
            while not helper.asked:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(lambda: None)
        assert helper.asked == [300 + 30]
        helper.goes_on.set()
        async with asyncio.timeout(60):
            for _ in wanted:
                await told.get()
        assert [plans.before(each) for each in wanted] == [0] * 60
        plan = plans.plan(KEY, replace(REQUEST, steps=359))
        assert isinstance(plan, PrivacyPlan)
        assert len(helper.asked) == 60
        plans.close()

    asyncio.run(scenario())


def test_jobs_that_ask_for_the_same_plan_share_it() -> None:
    """Epochs are steps, and a field that holds its default is none: the request is what counts."""

    async def scenario() -> None:
        told: asyncio.Queue[Key] = asyncio.Queue()
        plans = Plans(Calm(), told.put_nowait)  # type: ignore[arg-type]
        await answered(plans, told)
        training = digits()["spec"]["training"] | {"args": {"lr": 0.3}}
        other = digits(training=training, checkpoint={"keep": 5})
        request = plan_request(DistributedTrainingJob.from_dict(other).spec)
        assert isinstance(plans.plan(("research", "other"), request), PrivacyPlan)
        plans.close()

    asyncio.run(scenario())
