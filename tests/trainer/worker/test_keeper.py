"""What ranks are started from dies, and is started again, if not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger

from dtjob_trainer.worker import keeper
from dtjob_trainer.worker.deaths import Death
from dtjob_trainer.worker.keeper import Keeper
from dtjob_trainer.worker.processes import CannotStart

KILLED = "the forkserver was ended by SIGKILL: out of memory"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(keeper, "MOST_DEATHS", 2)


class Nursery:
    """Dies in its first `deaths` starts."""

    def __init__(self, deaths: int, *, lasting: bool = False) -> None:
        self.deaths, self.lasting = deaths, lasting
        self.death: Death | None = None
        self.opened = 0

    def open(self, ranks: int) -> None:
        assert ranks == 2
        self.opened, self.death = self.opened + 1, None

    async def warm_up(self) -> None:
        if self.deaths > 0:
            self.deaths -= 1
            self.death = None if self.lasting else Death(KILLED)
            raise CannotStart("told by its child", lasting=self.lasting)


class Scene:
    """A keeper, and what its worker hears of it."""

    def __init__(self, nursery: Any) -> None:
        self.log, self.warm, self.begun_anew = CapturingLogger(), asyncio.Event(), 0
        self.keeper = Keeper(
            nursery,
            2,
            structlog.wrap_logger(self.log, []),
            warm=self.warm.set,
            cold=self.cold,
        )

    async def cold(self) -> None:
        assert not self.keeper.is_ready
        self.begun_anew += 1

    async def until_warm(self) -> None:
        async with asyncio.timeout(60):
            await self.warm.wait()
        self.warm.clear()

    @property
    def details(self) -> list[str]:
        return [call.kwargs["detail"] for call in self.log.calls if call.method_name == "error"]


def play(nursery: Any, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> Scene:
    async def whole() -> Scene:
        scene = Scene(nursery, **settings)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(scene.keeper.keep())
            await act(scene)
            keeping.cancel()
        return scene

    return asyncio.run(whole())


def test_a_nursery_that_dies_while_it_starts_is_started_again() -> None:
    """Twice, as by the out-of-memory killer: it is no bug of the supervisor's."""
    nursery = Nursery(deaths=2)

    async def act(scene: Scene) -> None:
        await scene.until_warm()
        assert scene.keeper.is_ready

    scene = play(nursery, act)
    assert scene.details == [KILLED, KILLED]
    assert (nursery.opened, scene.begun_anew) == (2, 2)


def test_starts_in_a_row_that_all_fail_come_to_an_end() -> None:
    """As often as attempts may fail; nobody would learn of it otherwise, in a local run."""

    async def act(scene: Scene) -> None:
        with pytest.raises(CannotStart, match="so ended 3 starts in a row") as caught:
            await scene.keeper.keep()
        assert str(caught.value).startswith(KILLED)
        assert caught.value.lasting

    async def whole() -> None:
        await act(Scene(Nursery(deaths=3)))

    asyncio.run(whole())


def test_deaths_after_a_start_are_counted_by_the_attempts_that_they_end() -> None:
    nursery = Nursery(deaths=0)

    async def act(scene: Scene) -> None:
        for _ in range(5):
            await scene.until_warm()
            nursery.death = Death(KILLED)
        await scene.until_warm()

    scene = play(nursery, act)
    assert scene.details == [KILLED] * 5
    assert nursery.opened == 5


def test_imports_that_fail_are_not_tried_again() -> None:
    async def whole() -> None:
        await Scene(Nursery(deaths=1, lasting=True)).keeper.keep()

    with pytest.raises(CannotStart, match="told by its child"):
        asyncio.run(whole())


class Store:
    """Dies when it is told to; starts while there is a forkserver."""

    def __init__(self) -> None:
        self.lives, self.starts = False, 0
        self.fails = True

    def start(self) -> None:
        if self.fails:
            self.fails = False
            raise CannotStart("the forkserver died while it started a process")
        self.lives, self.starts = True, self.starts + 1


def test_a_store_that_cannot_start_is_a_death_of_what_starts_it() -> None:
    store: Any = Store()

    async def whole() -> None:
        scene = Scene(Nursery(deaths=0))
        scene.keeper.store = store
        keeping = asyncio.create_task(scene.keeper.keep())
        await scene.until_warm()
        assert scene.details == ["the forkserver died while it started a process"]
        store.lives = False
        async with asyncio.timeout(60):
            while store.starts < 2:
                await asyncio.sleep(0.001)
        assert scene.begun_anew == 1
        keeping.cancel()

    asyncio.run(whole())
