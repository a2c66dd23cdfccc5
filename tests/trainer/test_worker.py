"""One worker's supervisor, in parts that need no process of their own."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from gang import GangRun
from torch.distributed import TCPStore

from dtjob_accounting.process import HelperFailed
from dtjob_trainer import telemetry
from dtjob_trainer.gang import Action, Directive
from dtjob_trainer.processes import Store, forkserver_context
from dtjob_trainer.worker import Worker, _listen

both_families = pytest.mark.parametrize(
    "address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.ipv6)]
)
CHARGED = {"segments": [[2.0, 0.18, 8]], "delta": 1e-5, "charged": 8}


class Helper:
    """Answers with what it is given, in this order: an epsilon, a failure, or either later."""

    def __init__(self, *answers: float | Exception | Future[float]) -> None:
        self._answers = iter(answers)

    def submit_epsilon_of_segments(self, _segments: Any, _delta: float) -> Future[float]:
        answer: Future[float] = Future()
        match next(self._answers):
            case Future() as later:
                return later
            case Exception() as error:
                answer.set_exception(error)
            case epsilon:
                answer.set_result(epsilon)
        return answer


class Ranks:
    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []

    def send(self, rank: int, message: dict[str, str]) -> bool:
        assert rank == 0
        self.heard.append(message)
        return True

    async def kill(self) -> None:
        pass


def worker(folder: Path, ordinal: int = 0) -> Any:
    run = GangRun(folder)
    return Worker(run.config(ordinal), ordinal, lambda *_: None, structlog.get_logger())


def says(of: Any, **message: Any) -> None:
    of._on_message(0, {"type": "progress", "state": "Running", "stage": "training", **message})


async def settled(of: Any) -> None:
    while of._tasks:
        await asyncio.gather(*of._tasks)


TOLD = {"type": "epsilon", "charged": "8", "value": "1.2500"}


def test_rule_13_every_attempt_is_told_epsilon_of_what_another_charged(tmp_path: Path) -> None:
    async def scene() -> None:
        mine = worker(tmp_path)
        mine._pld = Helper(1.25, 1.25)
        for attempt in (1, 2):
            mine._attempt, mine._ranks = attempt, Ranks()
            for _ in range(3):
                says(mine, **CHARGED)
                await settled(mine)
            assert mine._ranks.heard == [TOLD], attempt
        assert mine._view.epsilon_spent == "1.2500"

    asyncio.run(scene())


def test_helper_that_failed_is_asked_again(tmp_path: Path) -> None:
    async def scene() -> None:
        mine = worker(tmp_path)
        mine._pld, mine._attempt, mine._ranks = Helper(HelperFailed("no memory"), 1.25), 1, Ranks()
        says(mine, **CHARGED)
        await settled(mine)
        assert mine._ranks.heard == []
        says(mine, **CHARGED)
        await settled(mine)
        assert mine._ranks.heard == [TOLD]

    asyncio.run(scene())


def test_rule_13_a_late_answer_lowers_no_epsilon(tmp_path: Path) -> None:
    async def scene() -> None:
        mine = worker(tmp_path)
        early, late = Future[float](), Future[float]()
        late.set_result(2.5)
        mine._pld = Helper(early, late)
        mine._attempt, mine._ranks = 1, Ranks()
        says(mine, **CHARGED)
        await asyncio.sleep(0)
        says(mine, **CHARGED | {"charged": 16})
        await asyncio.sleep(0.01)
        early.set_result(1.25)
        await settled(mine)
        assert mine._view.epsilon_spent == "2.5000"

    asyncio.run(scene())


def test_worker_that_is_told_to_stop_starts_no_ranks(tmp_path: Path) -> None:
    async def scene() -> None:
        mine = worker(tmp_path, ordinal=1)
        mine._warm = mine._terminating = True
        await mine._obey(Directive(revision=1, action=Action.RUN, attempt=1, workers=2))
        assert mine._ranks is None

    asyncio.run(scene())


def test_worker_without_ranks_does_not_count_as_training(tmp_path: Path) -> None:
    def ready(view: telemetry.WorkerView) -> float:
        families = {f.name: f for f in telemetry.WorkerMetrics(view, {}).collect()}
        return families["dtjob_worker_ready"].samples[0].value

    async def scene() -> None:
        mine = worker(tmp_path, ordinal=1)
        mine._ranks = Ranks()
        says(mine, state="Starting", stage="dry run")
        assert ready(mine._view) == 0
        says(mine)
        assert ready(mine._view) == 1
        await mine._stop_ranks()
        assert ready(mine._view) == 0

    asyncio.run(scene())


def test_report_says_whose_it_is(tmp_path: Path) -> None:
    mine = worker(tmp_path)
    assert telemetry.report(mine._view, 256)["jobUID"] == "5ac7f6f2"


@both_families
def test_worker_is_reached_over_both_families(address: str) -> None:
    with _listen("", 0, "http_port") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((address, port), timeout=5):
            pass


@pytest.mark.processes
@both_families
def test_store_is_reached_over_both_families(address: str) -> None:
    with _listen("", 0, "store_port") as listener:
        port = listener.getsockname()[1]
        store = Store(forkserver_context(), listener)
        store.start()
        try:
            client = TCPStore(
                address, port, is_master=False, timeout=timedelta(seconds=60), use_libuv=False
            )
            client.set("key", "value")
            assert client.get("key") == b"value"
        finally:
            store.stop()
