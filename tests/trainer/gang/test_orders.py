"""What people order through the ledger arrives once, in order, and whatever went wrong before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from dtjob_trainer.gang import orders
from dtjob_trainer.gang.orders import Orders
from dtjob_trainer.ledger.backend import LedgerUnreadable, Versioned
from tests.support.gangs.gang_run import GangRun


@pytest.fixture
def run(tmp_path: Path) -> GangRun:
    run = GangRun(tmp_path, workers=1)
    run.create_ledger()
    return run


def orders_of(run: GangRun, changed: Callable[[], None] = lambda: None) -> Orders:
    return Orders(run.ledger, changed, structlog.get_logger())


def ordered(run: GangRun) -> tuple[Versioned, Versioned]:
    """The ledger before another order, and with it."""
    before = run.ledger.read()
    given = before.ledger.spec.run.model_copy(update={"generation": 2})
    run.ledger.replace_spec(before, before.ledger.spec.model_copy(update={"run": given}))
    return before, run.ledger.read()


@pytest.mark.parametrize("error", [LedgerUnreadable("away"), ValueError("a bug")], ids=repr)
def test_an_order_arrives_after_the_watch_has_failed(
    run: GangRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Nobody waits for the task that watches, nor may it ask without a pause."""
    newest = run.ledger.read()
    answers: list[Exception | Versioned] = [error, error, newest]
    done: list[object] = []

    def wait(_version: str, _timeout: float) -> Versioned | None:
        done.append("asked")
        match answers.pop(0) if answers else None:
            case Exception() as failure:
                raise failure
            case answer:
                return answer

    async def sleep(seconds: float) -> None:
        done.append(seconds)

    monkeypatch.setattr(run.ledger, "wait", wait)
    no_pause = SimpleNamespace(to_thread=asyncio.to_thread, sleep=sleep)
    monkeypatch.setattr(orders, "asyncio", no_pause)

    async def scene() -> list[object]:
        done_before = asyncio.get_running_loop().create_future()

        def changed() -> None:
            if not done_before.done():
                done_before.set_result(list(done))

        run_orders = orders_of(run, changed)
        watching = asyncio.create_task(run_orders._watch())
        async with asyncio.timeout(10):
            did: list[object] = await done_before
        assert run_orders.order == newest.ledger.spec.run
        watching.cancel()
        return did

    assert asyncio.run(scene()) == ["asked", orders._PATIENCE_SECONDS] * 2 + ["asked"]


def raised(run: GangRun) -> tuple[Versioned, Versioned]:
    """The ledger before an administrator raised it, and after."""
    before = run.ledger.read()
    status = before.ledger.status.model_copy(update={"restored": 1, "attempt": 1})
    return before, run.ledger.replace_status(before, status)


@pytest.mark.parametrize(
    ("news", "uid"),
    [(ordered, None), (raised, None), (ordered, "another")],
    ids=["an order", "a raise", "a ledger made anew"],
)
def test_an_answer_of_the_watch_that_a_read_has_overtaken_is_no_news(
    run: GangRun,
    monkeypatch: pytest.MonkeyPatch,
    news: Callable[[GangRun], tuple[Versioned, Versioned]],
    uid: str | None,
) -> None:
    """An attempt would be drained for an order that was given before it began."""
    old, newest = news(run)
    metadata = old.ledger.metadata.model_copy(update={"uid": uid})
    first = Versioned("first", old.ledger.model_copy(update={"metadata": metadata}))
    answers = iter([first, Versioned("last", newest.ledger)])
    asked, has_read = threading.Event(), threading.Event()

    def wait(_version: str, _timeout: float) -> Versioned | None:
        asked.set()
        assert has_read.wait(10)
        return next(answers, None)

    monkeypatch.setattr(run.ledger, "wait", wait)
    versions: list[str] = []

    async def scene() -> None:
        changed = asyncio.Event()

        def tell() -> None:
            versions.append(run_orders._version)
            if run_orders._version == "last":
                changed.set()

        run_orders = orders_of(run, tell)
        run_orders._hear(old)
        watching = asyncio.create_task(run_orders._watch())
        await asyncio.to_thread(asked.wait, 10)
        run_orders._hear(newest)
        has_read.set()
        async with asyncio.timeout(10):
            await changed.wait()
        watching.cancel()

    asyncio.run(scene())
    expected = ["last"] if uid is None else ["first", "last"]
    assert versions == expected, "a ledger that was made anew is taken, and no other"


def test_an_answer_to_a_read_that_the_watch_has_overtaken_is_asked_for_again(
    run: GangRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an attempt would begin that is to drain."""
    old, newest = ordered(run)
    reading, given = threading.Event(), threading.Event()

    def read() -> Versioned:
        if given.is_set():
            return newest
        reading.set()
        assert given.wait(10)
        return old

    def wait(_version: str, _timeout: float) -> Versioned | None:
        assert reading.wait(10)
        return None if given.is_set() else newest

    monkeypatch.setattr(run.ledger, "read", read)
    monkeypatch.setattr(run.ledger, "wait", wait)

    async def scene() -> None:
        run_orders = orders_of(run, given.set)
        run_orders._hear(old)
        run_orders.take()
        watching = asyncio.create_task(run_orders._watch())
        answer = await run_orders.read()
        assert answer.ledger.spec.run.generation == 2
        assert run_orders.order == answer.ledger.spec.run
        assert not run_orders.has_news
        for task in (watching, run_orders._watching):
            assert task is not None
            task.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("by", ["read", "watch"])
def test_a_ledger_that_was_put_back_is_noticed(
    run: GangRun, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """From a copy of before the order: what it says now is what there is to do.

    A watch that passed over it would be answered at once, again and again.
    """
    old, newest = ordered(run)
    monkeypatch.setattr(run.ledger, "read", lambda: old)
    monkeypatch.setattr(
        run.ledger, "wait", lambda version, _: None if version == old.version else old
    )

    async def scene() -> None:
        changed = asyncio.Event()
        run_orders = orders_of(run, changed.set)
        run_orders._hear(newest)
        async with asyncio.timeout(10):
            if by == "read":
                assert await run_orders.read() == old
            else:
                run_orders._watching = asyncio.create_task(run_orders._watch())
                await changed.wait()
        assert run_orders.order == old.ledger.spec.run
        assert run_orders._watching is not None
        run_orders._watching.cancel()

    asyncio.run(scene())
