"""The reflector: whatever the API server tells, it goes on, and ends up with what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dtjob_operator import kinds
from dtjob_operator.cluster import _error, _events
from dtjob_operator.errors import ApiError, Gone
from dtjob_operator.kinds import JOB_UID_LABEL, Json, Selection
from dtjob_operator.metrics import Metrics
from dtjob_operator.reflector import Reflector
from dtjob_operator.store import Store

PODS = Selection(kinds.POD, label_selector=JOB_UID_LABEL)
Told = tuple[str, Json] | ApiError
DEADLINE = 10.0


def pod(version: int, name: str) -> Json:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}}


class Played:
    """An API server that answers lists and watches as it is told, then falls silent."""

    def __init__(self, lists: list[tuple[list[Json], int]], watches: list[list[Told]]) -> None:
        self.lists, self.watches = lists, watches
        self.watched_from: list[int] = []

    async def list(self, _kind: object, **_: object) -> tuple[list[Json], int]:
        return self.lists.pop(0)

    @asynccontextmanager
    async def watch(
        self, _kind: object, version: int, **_: object
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        self.watched_from.append(version)

        async def events() -> AsyncIterator[tuple[str, Json]]:
            for told in self.watches.pop(0) if self.watches else ():
                if isinstance(told, ApiError):
                    raise told
                yield told
            await asyncio.Event().wait()

        yield events()


def reflect(
    played: Played, until: Callable[[Store], bool], changed: Callable[[Json], None]
) -> Metrics:
    metrics = Metrics()

    async def scenario() -> None:
        store = Store()
        reflector = Reflector(played, PODS, store, changed, metrics)  # type: ignore[arg-type]
        running = asyncio.create_task(reflector.run())
        async with asyncio.timeout(DEADLINE):
            while not until(store):
                assert not running.done()
                await asyncio.sleep(0.01)
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
