"""The reflector: whatever the API server tells, it goes on, and ends up with what is there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dtjob_operator.kube import reflector
from dtjob_operator.kube.api_errors import ApiError, Gone
from dtjob_operator.kube.client import _error, _events
from dtjob_operator.kube.reflector import Reflector
from dtjob_operator.kube.store import Store
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_UID_LABEL, Json, Selection

PODS = Selection(kinds.POD, label_selector=JOB_UID_LABEL)
Told = tuple[str, Json] | ApiError
DEADLINE = 60.0


def pod(version: int, name: str) -> Json:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}}


class Played:
    """An API server that answers lists and watches as it is told, then falls silent.

    Attributes
    ----------
    cuts_off
        Watches end when all is told.
    """

    def __init__(self, lists: list[tuple[list[Json], int]], watches: list[list[Told]]) -> None:
        self.lists, self.watches = lists, watches
        self.cuts_off = False
        self.watched_from: list[int] = []

    async def pages(self, _kind: object, **_: object) -> AsyncIterator[tuple[list[Json], int]]:
        objects, version = self.lists.pop(0)
        for each in objects:
            yield [each], version
        yield [], version

    @asynccontextmanager
    async def watch(
        self, _kind: object, version: int, **_: object
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        self.watched_from.append(version)
        await asyncio.sleep(0)

        async def events() -> AsyncIterator[tuple[str, Json]]:
            for told in self.watches.pop(0) if self.watches else ():
                if isinstance(told, ApiError):
                    raise told
                yield told
            if self.cuts_off:
                return
            await asyncio.Event().wait()

        yield events()


def reflect(
    played: Played, until: Callable[[Store], bool], changed: Callable[[Json], None]
) -> Metrics:
    metrics = Metrics()

    async def scenario() -> None:
        store = Store()
        reflecting = Reflector(played, PODS, store, changed, metrics.count_odd_object)  # type: ignore[arg-type]
        running = asyncio.create_task(reflecting.run())
        async with asyncio.timeout(DEADLINE):
            while not until(store):
                assert not running.done()
                await asyncio.sleep(LOOK_SECONDS)
        running.cancel()

    asyncio.run(scenario())
    return metrics


def names(store: Store) -> set[str]:
    return {each["metadata"]["name"] for each in store}


def test_an_odd_object_is_passed_over() -> None:
    seen: list[str] = []

    def changed(obj: Json) -> None:
        if obj["metadata"]["name"].startswith("odd"):
            raise KeyError("dtjob.dev/job")
        seen.append(obj["metadata"]["name"])

    played = Played(
        [([pod(1, "odd-listed"), pod(2, "listed")], 2)],
        [[("ADDED", pod(3, "odd-watched")), ("ADDED", pod(4, "watched"))]],
    )
    metrics = reflect(played, lambda _store: "watched" in seen, changed)
    assert seen == ["listed", "watched"]
    assert b'dtjob_odd_objects_total{resource="pods"} 2.0' in metrics.exposition()


def test_after_a_restore_of_etcd_everything_is_listed_anew() -> None:
    """The API server does not know the version that is watched from: it is in its future."""
    told = {
        "reason": "Timeout",
        "message": "Too large resource version: 900, current: 500",
        "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]},
    }
    future = _error(504, told)
    assert isinstance(future, Gone)
    played = Played(
        [([pod(890, "ghost"), pod(891, "same")], 900), ([pod(400, "same")], 500)],
        [[future], [("ADDED", pod(501, "new"))]],
    )
    reflect(played, lambda store: names(store) == {"same", "new"}, lambda _obj: None)
    assert played.watched_from == [900, 500]


def test_a_silent_watch_is_not_gone_on_with() -> None:
    """From a version in its future an API server may also just wait, without a bookmark."""

    async def content() -> AsyncIterator[bytes]:
        raise TimeoutError
        yield b""

    async def scenario() -> None:
        response: Any = SimpleNamespace(content=content())
        with pytest.raises(Gone):
            await anext(aiter(_events(response, kinds.POD)))

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [500, 504])
def test_any_other_failure_of_a_watch_is_gone_on_from(code: int) -> None:
    played = Played(
        [([pod(1, "listed")], 7)],
        [[_error(code, {"message": "etcdserver: timed out"})], [("ADDED", pod(8, "new"))]],
    )
    reflect(played, lambda store: names(store) == {"listed", "new"}, lambda _obj: None)
    assert played.watched_from == [7, 7]


class Pauses:
    """Takes the place of sleeping, and of the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lasts: float) -> None:
        self.seconds: list[float] = []
        self._sleep = asyncio.sleep
        self._now, self._lasts = 0.0, lasts
        monkeypatch.setattr(asyncio, "sleep", self._note)
        monkeypatch.setattr(reflector, "time", SimpleNamespace(monotonic=self._tick))
        monkeypatch.setattr(random, "uniform", lambda _low, high: high)

    async def _note(self, seconds: float) -> None:
        if seconds not in {0, LOOK_SECONDS}:
            self.seconds.append(seconds)
        await self._sleep(0)

    def _tick(self) -> float:
        self._now += self._lasts
        return self._now


LOOK_SECONDS = 0.01
GONE = Gone(410, "Expired", "too old")


def test_watches_that_end_at_once_are_started_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy closes them, and would else be asked thousands of times a second."""
    pauses = Pauses(monkeypatch, lasts=0.1)
    played = Played([([], 7)], [])
    played.cuts_off = True
    reflect(played, lambda _store: len(pauses.seconds) >= 7, lambda _obj: None)
    assert pauses.seconds[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert set(played.watched_from) == {7}


def test_lists_of_versions_that_are_gone_at_once_are_asked_for_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = Pauses(monkeypatch, lasts=0.1)
    played = Played([([], 7)] * 9, [[GONE]] * 9)
    reflect(played, lambda _store: len(pauses.seconds) >= 5, lambda _obj: None)
    assert pauses.seconds[:5] == [0.2, 0.4, 0.8, 1.6, 3.2]


@pytest.mark.parametrize("end", [[], [GONE]], ids=["in order", "gone"])
def test_a_watch_that_stood_is_followed_by_the_next_at_once(
    end: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(monkeypatch, lasts=300.0)
    played = Played([([], 7)] * 9, [end] * 9)
    played.cuts_off = True
    reflect(played, lambda _store: len(played.watched_from) >= 8, lambda _obj: None)
    assert pauses.seconds == []
