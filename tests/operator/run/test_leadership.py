"""Who works, who stands by, and what ends whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dtjob_operator.kube.api_errors import ApiError, Unavailable
from dtjob_operator.kube.election import Superseded
from dtjob_operator.run import leadership
from dtjob_operator.run.health import Condition
from dtjob_operator.run.leadership import Leadership

AWAY = Unavailable(0, "NoAnswer", "away")
SECONDS = 60.0


class Candidate:
    """Answers as it is told, the last answer for ever; what is done is on record."""

    holder: str | None = "other"

    def __init__(self, elections: list[bool | ApiError], renewals: list[Exception | None]) -> None:
        self.elections, self.renewals = elections, renewals
        self.course: list[str] = []
        self.held = True

    def holds(self) -> bool:
        return self.held

    async def try_to_lead(self) -> bool:
        answer = self.elections.pop(0) if len(self.elections) > 1 else self.elections[0]
        if isinstance(answer, ApiError):
            self.course.append("error")
            raise answer
        self.course.append("elected" if answer else "standby")
        return answer

    async def renew(self) -> None:
        answer = self.renewals.pop(0) if len(self.renewals) > 1 else self.renewals[0]
        self.course.append("renewed" if answer is None else type(answer).__name__)
        if answer is not None:
            raise answer

    async def release(self) -> None:
        self.course.append("released")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(leadership, "_RENEW_SECONDS", 0.001)


def play(
    candidate: Candidate,
    until: Callable[[Leadership], bool],
    work: Callable[[], Awaitable[None]] | None = None,
) -> Leadership:
    """Run until something is so, then stop; what it raises by itself is raised here."""

    async def works() -> None:
        candidate.course.append("work")
        try:
            await asyncio.Event().wait()
        finally:
            candidate.course.append("worked")

    of_no_server: Any = candidate

    async def scenario() -> Leadership:
        led = Leadership(of_no_server)
        running = asyncio.create_task(led.run(work or works))
        async with asyncio.timeout(SECONDS):
            while not until(led) and not running.done():
                await asyncio.sleep(0.001)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return led

    return asyncio.run(scenario())


def well(led: Leadership, trouble: str | None = None) -> Condition:
    return led.readiness(lambda: trouble, dict)


def test_a_standby_works_on_nothing_and_is_well() -> None:
    candidate = Candidate([False], [None])
    led = play(candidate, lambda _led: len(candidate.course) > 3)
    assert set(candidate.course) == {"standby"}
    assert well(led, "nothing is listed yet") == Condition(True, "standby: other leads")


def test_who_can_not_know_is_not_ready_and_says_why() -> None:
    candidate = Candidate([AWAY], [None])
    assert not well(Leadership(candidate)).well  # type: ignore[arg-type]
    led = play(candidate, lambda _led: len(candidate.course) > 3)
    assert set(candidate.course) == {"error"}
    assert well(led) == Condition(False, "whether this operator leads is not known: away")


def test_the_lease_is_given_back_when_the_work_is_over() -> None:
    candidate = Candidate([False, AWAY, True], [None])
    play(candidate, lambda _led: "renewed" in candidate.course)
    assert candidate.course[:4] == ["standby", "error", "elected", "work"]
    assert candidate.course[-2:] == ["worked", "released"]


def test_a_leader_in_trouble_says_so() -> None:
    candidate = Candidate([True], [None])
    led = play(candidate, lambda _led: "renewed" in candidate.course)
    assert well(led) == Condition()
    assert well(led, "the watch is away") == Condition(False, "the watch is away")


def test_a_leader_that_can_not_renew_goes_on_asking_and_is_not_ready() -> None:
    candidate = Candidate([True], [AWAY])

    def past_the_deadline(_led: Leadership) -> bool:
        candidate.held = candidate.course.count("Unavailable") < 3
        return candidate.course.count("Unavailable") > 5

    led = play(candidate, past_the_deadline)
    assert well(led) == Condition(False, "whether this operator leads is not known: away")
    candidate.held = True
    assert well(led) == Condition(), "for it may still write"


def test_who_is_followed_ends_at_once_and_gives_nothing_back() -> None:
    candidate = Candidate([True], [None, AWAY, Superseded("other leads")])
    ended: list[str] = []

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("worked")

    async def scenario() -> None:
        of_no_server: Any = candidate
        with pytest.raises(Superseded, match="other leads"):
            await Leadership(of_no_server).run(works)
        assert not ended, "nothing waits for what is under way"

    asyncio.run(scenario())
    assert "released" not in candidate.course


def test_what_ends_the_work_is_raised_and_another_may_try() -> None:
    candidate = Candidate([True], [None])

    async def fails() -> None:
        raise ValueError("no guard")

    with pytest.raises(ValueError, match="no guard"):
        play(candidate, lambda _led: False, fails)
    assert candidate.course == ["elected", "released"]
