"""One worker's supervisor, in parts that need no process of their own."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, Directive, End, EndKind, Hello
from dtjob_api.wire.pipe import Progress, Spending, ToRank
from dtjob_api.wire.worker_report import WorkerState
from dtjob_exporter.nvml import GpuFigures
from dtjob_trainer.gang.splice import Tunnel
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.process import listening
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker import telemetry
from dtjob_trainer.worker.deaths import Death, MemoryKills
from dtjob_trainer.worker.forkserver import Forkserver
from dtjob_trainer.worker.processes import CannotStart
from dtjob_trainer.worker.supervision import Supervisor
from tests.support.gangs.gang_run import GangRun

both_families = pytest.mark.parametrize(
    "address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.ipv6)]
)
CHARGED = {"spending": Spending([(2.0, 0.18, 8)], 1e-5, 9.0), "charged": 8}


class Ranks:
    def __init__(self) -> None:
        self.received: list[ToRank] = []

    def send(self, rank: int, message: ToRank) -> bool:
        assert rank == 0
        self.received.append(message)
        return True

    async def kill(self) -> None:
        pass


class Nursery:
    """Where nothing is started: it is warm at once, or says how it ends."""

    def __init__(self) -> None:
        self.death: Death | None = None
        self.kills = MemoryKills()
        self.started: list[int] = []
        self.fails: CannotStart | None = None

    async def warm_up(self) -> None:
        if self.fails is not None:
            raise self.fails

    def rank(self, setup: RankSetup, _pipe: Any, _output: Any) -> Any:
        self.started.append(setup.rank)
        return self

    def start(self) -> None:
        raise EOFError

    def accountant(self) -> None:
        pass


def worker(folder: Path, position: int = 0, nursery: Any = None) -> Any:
    run = GangRun(folder)
    nursery = nursery or Forkserver(lambda *_: None)
    return Supervisor(run.config(position), position, nursery, structlog.get_logger())


RUN = Directive(revision=1, action=Action.RUN, attempt=1, workers=2, store_key="a key")


def warm(folder: Path) -> tuple[Any, Nursery]:
    """Worker 1, ready to start ranks."""
    nursery = Nursery()
    mine = worker(folder, position=1, nursery=nursery)
    mine._keeper.is_warm = True
    return mine, nursery


def says(of: Any, **message: Any) -> None:
    at = {"state": WorkerState.RUNNING, "stage": "training"}
    of._on_progress(0, Progress(**at | message))


@pytest.mark.rule(13)
def test_charged_draws_go_to_the_accountant(tmp_path: Path) -> None:
    """Together with what a bound takes where there is no helper; without privacy there is none."""

    async def scene() -> None:
        mine = worker(tmp_path)
        asked: list[Any] = []
        mine._pricing.charge = lambda attempt, charged, of: asked.append(
            (attempt, charged, of.segments, of.delta, of.guaranteed)
        )
        mine._attempt = 3
        says(mine, **CHARGED)
        assert asked == [(3, 8, [(2.0, 0.18, 8)], 1e-5, 9.0)]
        says(mine, charged=24)
        assert (mine._current.report.charged, len(asked)) == (24, 1)

    asyncio.run(scene())


def test_worker_that_is_to_stop_starts_no_ranks(tmp_path: Path) -> None:
    async def scene() -> None:
        mine, nursery = warm(tmp_path)
        mine.terminate()
        await mine._obey(RUN)
        assert nursery.started == []

    asyncio.run(scene())


def test_worker_that_the_run_has_no_more_room_for_starts_no_ranks(tmp_path: Path) -> None:
    """Its pod goes once the larger gang has stopped, and it hears the next directives till then."""

    async def scene() -> None:
        mine, nursery = warm(tmp_path)
        await mine._obey(RUN.model_copy(update={"workers": 1}))
        assert nursery.started == []

    asyncio.run(scene())


@pytest.mark.parametrize("death", [None, Death("the forkserver died")])
def test_worker_that_can_start_no_ranks_once_the_way_is_open_starts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: Death | None
) -> None:
    """The leader has learnt meanwhile that it leaves, and waits for no ranks of it."""

    async def scene() -> None:
        mine, nursery = warm(tmp_path)
        open_tunnel, close_tunnel, closed = Tunnel.open, Tunnel.close, []

        async def opened_late(tunnel: Tunnel) -> int:
            port = await open_tunnel(tunnel)
            if death is None:
                mine.terminate()
            nursery.death = death
            return port

        async def close(tunnel: Tunnel) -> None:
            closed.append(tunnel)
            await close_tunnel(tunnel)

        monkeypatch.setattr(Tunnel, "open", opened_late)
        monkeypatch.setattr(Tunnel, "close", close)
        await mine._obey(RUN)
        assert (nursery.started, mine._ranks, len(closed)) == ([], None, 1)

    asyncio.run(scene())


def test_worker_whose_forkserver_dies_at_a_start_counts_as_restarted(tmp_path: Path) -> None:
    """Else the other ranks would wait for its own until they count as stalled."""

    async def scene() -> None:
        mine, nursery = warm(tmp_path)
        before = mine._incarnation
        await mine._obey(RUN)
        assert nursery.started == [1]
        assert (mine._ranks, mine._tunnel, mine._attempt) == (None, None, 0)
        assert mine._incarnation != before

    asyncio.run(scene())


def test_worker_that_will_never_start_ranks_ends_and_says_why(tmp_path: Path) -> None:
    """Not with the traceback of a bug: in a pod its last words are all that is seen."""

    async def scene() -> None:
        nursery = Nursery()
        nursery.fails = CannotStart("no module named torch", lasting=True)
        mine = worker(tmp_path, position=1, nursery=nursery)
        await mine._follow_until_done()

    with pytest.raises(CannotStart, match="no module named torch"):
        asyncio.run(scene())


@pytest.mark.parametrize("code", [WorkerExit.HELD, 0])
def test_worker_0_leaves_with_its_leader_though_no_hello_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Else a command waits for ever for a worker that nobody can tell to go home."""
    monkeypatch.setattr("dtjob_trainer.worker.supervision.ORDERLY_SECONDS", 0.0)

    class Leader:
        left = False

        async def lead(self) -> int:
            return code

    class Killed(Ranks):
        was = False

        async def kill(self) -> None:
            self.was = True

    async def scene() -> None:
        mine = worker(tmp_path, nursery=Nursery())
        mine._leader = Leader()
        mine._ranks = ranks = Killed()
        async with asyncio.timeout(60):
            assert await mine._follow_until_done() == code
        assert (ranks.was, mine._ranks) == (True, None)

    asyncio.run(scene())


def test_worker_0_hears_its_leaders_last_word_in_order(tmp_path: Path) -> None:
    """It finishes what it was ordered before it leaves: the others get the order as it does."""
    obeyed: list[Directive] = []
    done = Directive(revision=1, action=Action.DONE, exit_code=WorkerExit.HELD)

    class Leader:
        left = False

        async def lead(self) -> int:
            return WorkerExit.HELD

    async def scene() -> None:
        mine = worker(tmp_path, nursery=Nursery())
        mine._leader = Leader()

        async def say(*_: Any) -> Directive:
            await asyncio.sleep(0)
            return done

        async def obey(directive: Directive) -> None:
            obeyed.append(directive)

        mine._say_hello, mine._obey = say, obey
        assert await mine._follow_until_done() == WorkerExit.HELD

    asyncio.run(scene())
    assert obeyed == [done]


def test_worker_without_ranks_does_not_count_as_training(tmp_path: Path) -> None:
    def ready(current: CurrentView) -> float:
        families = {f.name: f for f in telemetry.WorkerMetrics(current, {}).collect()}
        return families["dtjob_worker_ready"].samples[0].value

    async def scene() -> None:
        mine = worker(tmp_path, position=1)
        mine._ranks = Ranks()
        says(mine, state=WorkerState.STARTING, stage="dry run")
        assert ready(mine._current) == 0
        says(mine)
        assert ready(mine._current) == 1
        await mine._stop_ranks()
        assert ready(mine._current) == 0

    asyncio.run(scene())


def test_of_many_ends_a_hello_has_the_words_of_one(tmp_path: Path) -> None:
    """A hello may be of 64 KiB at most, and a worker may have 256 ranks."""
    hellos: list[Hello] = []

    class Greeter:
        async def say(self, hello: Hello) -> Directive:
            hellos.append(hello)
            return RUN

    async def scene() -> None:
        mine = worker(tmp_path, position=1)
        mine._ends = [
            End(kind=EndKind.CRASHED, rank=rank, reason=Reason.RANK_FAILED, message="lost a peer")
            for rank in range(3)
        ]
        assert await mine._say_hello(Greeter(), -1) == RUN

    asyncio.run(scene())
    assert [end.message for end in hellos[0].ends] == ["lost a peer", "", ""]


def test_a_worker_that_does_not_lead_shows_its_gpus_too(tmp_path: Path) -> None:
    gpu = GpuFigures(0, "GPU-a", "H100", 91, 3 << 30, 80 << 30, 61, 412.6)

    class Greeter:
        async def say(self, _hello: Hello) -> Directive:
            return RUN

    mine = worker(tmp_path, position=1)
    mine._gpus = SimpleNamespace(read=lambda: [gpu])
    asyncio.run(mine._say_hello(Greeter(), -1))
    shown = {f.name: f for f in telemetry.WorkerMetrics(mine._current, {}).collect()}
    assert [s.value for s in shown["dtjob_gpu_power_watts"].samples] == [412.6]


def test_report_says_whose_it_is(tmp_path: Path) -> None:
    mine = worker(tmp_path)
    assert telemetry.worker_report(mine._current.view, 256).job_uid == "5ac7f6f2"


@both_families
def test_worker_is_reached_over_both_families(address: str) -> None:
    with listening.listen("", 0, "http_port") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((address, port), timeout=5):
            pass
