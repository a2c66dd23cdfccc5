"""One worker's supervisor, in parts that need no process of their own."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog
from gang import GangRun

from dtjob_trainer import doors, telemetry
from dtjob_trainer.gang import Action, Directive
from dtjob_trainer.processes import Forkserver
from dtjob_trainer.worker import Worker

both_families = pytest.mark.parametrize(
    "address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.ipv6)]
)
CHARGED = {"segments": [[2.0, 0.18, 8]], "delta": 1e-5, "guaranteed": 9.0, "charged": 8}


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
    nursery = Forkserver(lambda *_: None)
    return Worker(run.config(ordinal), ordinal, nursery, structlog.get_logger())


def says(of: Any, **message: Any) -> None:
    of._on_message(0, {"type": "progress", "state": "Running", "stage": "training", **message})


def test_rule_13_charged_draws_go_to_the_accountant(tmp_path: Path) -> None:
    """Together with what a bound takes where there is no helper; without privacy there is none."""

    async def scene() -> None:
        mine = worker(tmp_path)
        asked: list[Any] = []
        mine._pricing.charge = lambda *question: asked.append(question)
        mine._attempt = 3
        says(mine, **CHARGED)
        assert asked == [(3, 8, [[2.0, 0.18, 8]], 1e-5, 9.0)]
        says(mine, charged=24)
        assert (mine._view.charged, len(asked)) == (24, 1)

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
    with doors.listen("", 0, "http_port") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((address, port), timeout=5):
            pass
