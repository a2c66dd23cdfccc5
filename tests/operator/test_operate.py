"""The operator's parts together, before an API server that was restored, restarted or unguarded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_cluster import FakeCluster
from structlog.testing import capture_logs
from world import digits

from dtjob_operator import guard, kinds
from dtjob_operator.errors import ApiError
from dtjob_operator.handlers import EventStream
from dtjob_operator.metrics import Metrics
from dtjob_operator.operate import Operator, Options


def test_after_a_restore_of_etcd_jobs_are_believed_as_listed_and_watched_anew() -> None:
    """kopf goes on watching from the version it knew, and hears nothing until it comes again."""

    async def scenario() -> None:
        cluster: Any = FakeCluster()
        process: Any = None
        operator = Operator(cluster, process, Metrics(), Options(namespace="dtjob-system"))
        restarted: list[None] = []
        operator._stream.restart = lambda: restarted.append(None)  # type: ignore[method-assign]

        cluster.version = 900
        cluster.put(digits() | {"status": {"phase": "Running"}})
        await operator._resync()
        assert not restarted

        cluster.version = 400
        cluster.put(digits() | {"status": {"phase": "Pending"}})
        await operator._resync()
        assert restarted
        (job,) = operator._stores[kinds.JOB]
        assert job["status"]["phase"] == "Pending"

        restarted.clear()
        await operator._resync()
        assert not restarted
        await operator.close()

    asyncio.run(scenario())


def test_a_stream_is_restarted_only_while_it_runs() -> None:
    async def gap() -> None:
        return None

    async def undiscovered() -> str | None:
        return None

    stream = EventStream(lambda *_: None, gap, undiscovered, Metrics())
    stopped: list[None] = []

    def stop() -> None:
        stopped.append(None)
        raise RuntimeError("Event loop is closed")

    stream._stop = stop
    stream.restart()
    assert not stopped
    stream.running = True
    stream.restart()
    assert stopped


def operating(scenario: Callable[[Operator, Any, Metrics], Awaitable[None]]) -> None:
    async def played() -> None:
        cluster: Any = FakeCluster()
        process: Any = None
        metrics = Metrics()
        operator = Operator(cluster, process, metrics, Options(namespace="dtjob-system"))
        await scenario(operator, cluster, metrics)
        await operator.close()

    asyncio.run(played())


def test_kinds_that_discovery_does_not_tell_of_are_named() -> None:
    async def scenario(operator: Operator, cluster: Any, _metrics: Metrics) -> None:
        assert await operator._undiscovered() is None
        cluster.plurals = {kinds.JOB.plural}
        obstacle = await operator._undiscovered()
        assert obstacle is not None
        assert kinds.LEDGER.plural in obstacle
        assert kinds.JOB.plural not in obstacle
        cluster.fails = lambda verb, _of: (
            ApiError.of(503, "", "away") if verb == "discover" else None
        )
        assert await operator._undiscovered() == "away"

        operator._starting = None
        operator._stream._obstacle = obstacle
        assert operator.trouble() == obstacle

    operating(scenario)


def test_the_policy_is_tried_again_and_a_change_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ApiError.of(503, "", "away")
    course: list[bool | ApiError] = [True, True, False, False, away, away, True]
    told: list[int] = []
    figures: list[str] = []

    async def policy_is_active(*_: object) -> bool:
        found = course.pop(0)
        if isinstance(found, ApiError):
            raise found
        return found

    async def scenario(operator: Operator, _cluster: Any, metrics: Metrics) -> None:
        assert "dtjob_ledger_policy_enforced NaN" in metrics.exposition().decode()
        while course:
            with capture_logs() as logs:
                await operator._check_policy()
            told.append(sum(log["log_level"] == "warning" for log in logs))
            line = next(
                line
                for line in metrics.exposition().decode().splitlines()
                if line.startswith("dtjob_ledger_policy_enforced")
            )
            figures.append(line.split()[1])

    monkeypatch.setattr(guard, "policy_is_active", policy_is_active)
    operating(scenario)
    assert told == [0, 0, 1, 0, 1, 0, 0]
    assert figures == ["1.0", "1.0", "0.0", "0.0", "0.0", "0.0", "1.0"]


def test_the_policy_is_tried_at_each_resync() -> None:
    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        tried = asyncio.Event()
        tries = 0

        async def check() -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                tried.set()

        operator._check_policy = check  # type: ignore[method-assign]
        operator._options = Options(namespace="dtjob-system", resync_seconds=0.01)
        regularly = asyncio.create_task(operator._resync_regularly())
        async with asyncio.timeout(60):
            await tried.wait()
        regularly.cancel()

    operating(scenario)


def test_a_policy_that_can_not_be_tried_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[ApiError | None] = []

    class Api:
        async def get(self, *_: object) -> dict[str, Any]:
            return {"metadata": {"uid": "canary"}}

        async def delete(self, *_: object, dry_run: bool) -> None:
            assert dry_run
            if (answer := answers.pop(0)) is not None:
                raise answer

    async def active(*course: ApiError | None) -> bool:
        answers[:] = course
        api: Any = Api()
        return await guard.policy_is_active(api, "dtjob-system")

    refused = ApiError.of(
        422, "Invalid", "ValidatingAdmissionPolicy ledger-writer.dtjob.dev denied"
    )
    away = ApiError.of(503, "", "away")
    monkeypatch.setattr(guard, "_RETRY_SECONDS", 0.0)
    assert asyncio.run(active(None, away, refused)), "a policy takes some seconds to work"
    monkeypatch.setattr(guard, "_POLICY_SECONDS", 0.0)
    assert not asyncio.run(active(None))
    with pytest.raises(ApiError, match="away"):
        asyncio.run(active(away))
