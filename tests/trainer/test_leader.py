"""The leader's orders reach ranks that are not there yet, or nothing waits for them (rule 10)."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import structlog
from gang import GangRun

from dtjob_api.reasons import Reason
from dtjob_trainer.gang import Action, Directive, End, EndKind, Hello
from dtjob_trainer.leader import EXIT_OK, Leader
from dtjob_trainer.telemetry import WorkerView


class Ranks:
    """Rank 0 as the leader sees it: deaf until it has been told ``deaf`` times."""

    def __init__(self, deaf: int) -> None:
        self.deaf, self.told = deaf, 0

    def tell(self, message: dict[str, str]) -> bool:
        assert message == {"type": "drain"}
        self.told += 1
        return self.told > self.deaf


def a_leader(folder: Path, ranks: Ranks) -> tuple[Leader, GangRun]:
    run = GangRun(folder, workers=1)
    run.create_ledger()
    view = WorkerView(ordinal=0, job_uid="5ac7f6f2")
    return Leader(run.config(0), run.ledger, view, structlog.get_logger(), ranks.tell), run


async def follow(leader: Leader, *, until: Action, **hello: Any) -> Directive:
    """Say the same until the directive is the expected one."""
    known = -1
    for _ in itertools.count():
        said = Hello(ordinal=0, incarnation="a", ready=True, known=known, **hello)
        async with asyncio.timeout(10):
            directive = await leader.hello(said)
        if directive.action is until:
            return directive
        known = directive.revision
    raise AssertionError


def test_drain_is_told_until_a_rank_hears_it(tmp_path: Path) -> None:
    """A SIGTERM while the ranks are being started is not lost."""
    ranks = Ranks(deaf=2)
    leader, run = a_leader(tmp_path, ranks)

    async def scene() -> int:
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        await follow(leader, until=Action.RUN, attempt=1)
        leader.terminating = True
        leader.wake()
        async with asyncio.timeout(5):
            while ranks.told < 3:
                await asyncio.sleep(0.02)
                leader.wake()
        drained = End(kind=EndKind.DRAINED, rank=0, reason=Reason.STOPPED)
        await follow(leader, until=Action.END, attempt=1, drain=True, ends=(drained,))
        await follow(leader, until=Action.DONE, drain=True)
        return await leading

    assert asyncio.run(scene()) == EXIT_OK
    assert ranks.told == 3
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"


def test_worker_that_leaves_before_it_starts_ranks_ends_the_attempt(tmp_path: Path) -> None:
    """The others would wait for its ranks until they count as stalled."""
    ranks = Ranks(deaf=10**6)
    leader, run = a_leader(tmp_path, ranks)

    async def scene() -> int:
        leading = asyncio.create_task(leader.lead())
        await follow(leader, until=Action.RUN)
        leader.terminating = True
        await follow(leader, until=Action.END, drain=True)
        await follow(leader, until=Action.DONE, drain=True)
        return await leading

    assert asyncio.run(scene()) == EXIT_OK
    (record,) = run.ledger.read().ledger.status.attempts
    assert record.reason == "Stopped"
