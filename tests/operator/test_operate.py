"""The operator's parts together, where etcd was restored from a backup."""

from __future__ import annotations

import asyncio
from typing import Any

from fake_cluster import FakeCluster
from world import digits

from dtjob_operator import kinds
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

    stream = EventStream(lambda *_: None, gap, Metrics())
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
