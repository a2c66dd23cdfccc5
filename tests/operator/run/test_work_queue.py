"""The work queue: no key is lost, none runs twice at a time, failures come back later."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtjob_operator.kube.store import Key
from dtjob_operator.run import work_queue
from dtjob_operator.run.work_queue import WorkQueue
from testing.examples import examples

A, B = ("ns", "a"), ("ns", "b")
DEADLINE = 60.0


async def until(condition: object) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


@settings(max_examples=examples(50), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), min_size=1, max_size=30
    )
)
def test_every_change_is_seen_by_a_later_run(events: list[tuple[str, int, bool]]) -> None:
    """Whatever the timing: after the last change of a key it is worked on, alone."""
    changes: Counter[Key] = Counter()
    seen: Counter[Key] = Counter()
    running: Counter[Key] = Counter()

    async def scenario() -> None:
        queue = WorkQueue()
        failing = {("ns", name) for name, _, fails in events if fails}

        async def work(key: Key) -> None:
            running[key] += 1
            assert running[key] == 1
            found = changes[key]
            await asyncio.sleep(0)
            running[key] -= 1
            if key in failing:
                failing.discard(key)
                raise RuntimeError("once")
            seen[key] = found

        workers = asyncio.create_task(queue.run(work, 2))
        for name, pauses, _ in events:
            changes["ns", name] += 1
            queue.add(("ns", name))
            for _ in range(pauses):
                await asyncio.sleep(0)
        await until(lambda: seen == changes and len(queue) == 0)
        queue.close()
        await workers

    asyncio.run(scenario())


def test_added_many_times_is_worked_on_once() -> None:
    async def scenario() -> list[Key]:
        queue, done = WorkQueue(), []

        async def work(key: Key) -> None:
            done.append(key)

        for _ in range(5):
            queue.add(A)
        assert len(queue) == 1
        workers = asyncio.create_task(queue.run(work, 4))
        await until(lambda: len(queue) == 0 and done)
        queue.close()
        await workers
        return done

    assert asyncio.run(scenario()) == [A]


def test_failures_come_back_ever_later_and_success_forgets_them() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        times: list[float] = []
        loop = asyncio.get_running_loop()

        async def work(key: Key) -> None:
            times.append(loop.time())
            if len(times) < 5:
                raise RuntimeError

        queue.add(A)
        workers = asyncio.create_task(queue.run(work, 1))
        await until(lambda: len(times) == 5)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        for number, pause in enumerate(pauses):
            assert pause >= 0.05 * 2**number * 0.74
        queue.close()
        await workers

    asyncio.run(scenario())


def test_a_key_comes_back_when_it_asked_to() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        runs: list[Key] = []

        async def work(key: Key) -> float | None:
            runs.append(key)
            return 0.01 if len(runs) < 3 else None

        queue.add(A)
        workers = asyncio.create_task(queue.run(work, 1))
        await until(lambda: len(runs) == 3)
        await asyncio.sleep(0.05)
        assert len(runs) == 3
        queue.close()
        await workers

    asyncio.run(scenario())


def test_closing_finishes_what_is_under_way_and_nothing_else() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        begun, may_end, ended = asyncio.Event(), asyncio.Event(), []

        async def work(key: Key) -> None:
            begun.set()
            await may_end.wait()
            ended.append(key)

        queue.add(A)
        queue.add(B)
        workers = asyncio.create_task(queue.run(work, 1))
        await begun.wait()
        queue.close()
        queue.add(A)
        may_end.set()
        async with asyncio.timeout(DEADLINE):
            await workers
        assert ended == [A]

    asyncio.run(scenario())


def test_another_keys_work_goes_on_while_one_hangs() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        done: list[Key] = []
        may_end = asyncio.Event()

        async def work(key: Key) -> None:
            if key == A:
                await may_end.wait()
            done.append(key)

        queue.add(A)
        queue.add(B)
        workers = asyncio.create_task(queue.run(work, 2))
        await until(lambda: done == [B])
        may_end.set()
        queue.close()
        await workers

    asyncio.run(scenario())


def test_a_cancelled_queue_does_not_hang() -> None:
    async def scenario() -> None:
        queue = WorkQueue()

        async def work(_key: Key) -> None:
            await asyncio.Event().wait()

        queue.add(A)
        workers = asyncio.create_task(queue.run(work, 2))
        await asyncio.sleep(0.01)
        workers.cancel()
        with pytest.raises(asyncio.CancelledError):
            await workers

    asyncio.run(scenario())


def test_a_queue_that_stands_still_is_told_from_one_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the API server is away each step takes long, and each is one."""
    now = 1000.0
    # The loop goes by the true clock.
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: now))

    async def scenario() -> None:
        nonlocal now
        queue, begun, ends = WorkQueue(), asyncio.Event(), asyncio.Event()

        async def work(_key: Key) -> None:
            begun.set()
            await ends.wait()

        now += 500
        assert queue.stalled_seconds() == 0, "nothing waits"
        queue.add(A)
        now += 20
        queue.add(B)
        assert queue.stalled_seconds() == 20, "by the one that waits longest"
        running = asyncio.create_task(queue.run(work, 1))
        await begun.wait()
        assert queue.stalled_seconds() == 0
        now += 30
        assert queue.stalled_seconds() == 30
        ends.set()
        await until(lambda: not len(queue))
        now += 500
        assert queue.stalled_seconds() == 0
        queue.add(A)
        assert queue.stalled_seconds() == 0, "what waits has only just come"
        queue.close()
        await running

    asyncio.run(scenario())


def test_what_comes_in_many_steps_is_worked_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "GATHER_SECONDS", 0.05)

    async def scenario() -> tuple[list[Key], float]:
        queue, done = WorkQueue(), []

        async def work(key: Key) -> None:
            done.append(key)

        workers = asyncio.create_task(queue.run(work, 4))
        began = asyncio.get_running_loop().time()
        for _ in range(5):
            queue.gather(A)
            await asyncio.sleep(0)
        assert (len(queue), done) == (1, [])
        await until(lambda: done)
        seconds = asyncio.get_running_loop().time() - began
        assert len(queue) == 0
        queue.close()
        await workers
        return done, seconds

    done, seconds = asyncio.run(scenario())
    assert done == [A]
    assert seconds >= 0.05


def test_what_is_wanted_at_once_waits_for_nothing_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_queue, "GATHER_SECONDS", DEADLINE)

    async def scenario() -> list[Key]:
        queue, done = WorkQueue(), []

        async def work(key: Key) -> None:
            done.append(key)

        workers = asyncio.create_task(queue.run(work, 4))
        queue.gather(A)
        queue.add(A)
        await until(lambda: done)
        assert len(queue) == 0, "it is not worked on once more"
        queue.gather(B)
        queue.close()
        await workers
        return done

    assert asyncio.run(scenario()) == [A]


def test_a_namespace_that_is_slow_leaves_places_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one whose webhook does not answer: none of its writes ends for as long as is waited."""
    monkeypatch.setattr(work_queue, "_SLOW_SECONDS", 0.2)

    async def scenario() -> None:
        queue, release = WorkQueue(), asyncio.Event()
        begun: list[Key] = []

        async def work(key: Key) -> None:
            begun.append(key)
            if key[0] == "sick":
                await (release.wait() if len(begun) > 1 else asyncio.sleep(0.3))

        workers = asyncio.create_task(queue.run(work, 4))
        queue.add(("sick", "first"))
        await until(lambda: len(queue) == 0)
        for number in range(10):
            queue.add(("sick", str(number)))
        await until(lambda: len(begun) == 3)
        for number in range(5):
            queue.add(("well", str(number)))
        await until(lambda: sum(where == "well" for where, _ in begun) == 5)
        assert sum(where == "sick" for where, _ in begun) == 3, "the first, and two of four places"
        release.set()
        await until(lambda: len(queue) == 0)
        assert sorted(begun) == sorted({*begun}), "each once"
        assert len(begun) == 16
        queue.close()
        await workers

    asyncio.run(scenario())


def test_a_namespace_is_no_longer_slow_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: now))

    async def scenario() -> None:
        nonlocal now
        queue, most = WorkQueue(), 0
        running = 0

        async def work(_key: Key) -> None:
            nonlocal now, most, running
            running += 1
            most = max(most, running)
            for _ in range(3):
                await asyncio.sleep(0)
            running -= 1
            if not most_before:
                now += 2.1

        most_before = 0
        workers = asyncio.create_task(queue.run(work, 4))
        queue.add(("sick", "first"))
        await until(lambda: len(queue) == 0)
        for passed, places in ((59.0, 2), (61.0, 4)):
            most_before, most, now = 1, 0, 2.1 + passed
            for number in range(10):
                queue.add(("sick", str(number)))
            await until(lambda: len(queue) == 0)
            assert most == places
        queue.close()
        await workers

    asyncio.run(scenario())
