"""Logs on their way: a coordinator that is slow, dead or new, and words that are nobody's."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dtjob_api.wire.gang import LogPart
from dtjob_serving import doors
from dtjob_trainer.gang import log_shipping
from dtjob_trainer.gang.endpoints import Hellos
from dtjob_trainer.gang.log_shipping import Delivery, LogKeeper, Shipper, ToCoordinator
from dtjob_trainer.identity.credentials import RunSecret
from dtjob_trainer.process.logs import own_logger
from dtjob_trainer.retention.backlog import Backlog
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume, log_path

KEY = LogKey(3, 1)


def part(number: int = 0, *, position: int = 1, attempt: int = 3, rank: int = 1) -> LogPart:
    return LogPart(
        position=position, attempt=attempt, rank=rank, number=number, data=f"{number}\n".encode()
    )


def keeper(folder: Path, newest: tuple[int, int] = (3, 2)) -> LogKeeper:
    return LogKeeper(LogVolume(folder, 1 << 20), lambda: newest, each=1)


@dataclass
class Coordinator:
    """Answers as it is told to."""

    answers: list[Delivery] = field(default_factory=list)
    parts: list[LogPart] = field(default_factory=list)

    async def deliver(self, sent: LogPart) -> Delivery:
        self.parts.append(sent)
        return self.answers.pop(0) if self.answers else Delivery.TAKEN


def waiting() -> Backlog:
    backlog = Backlog(position=1)
    backlog.put(KEY, b"a\n")
    return backlog


def test_what_is_not_taken_now_is_sent_again_and_what_is_refused_is_not() -> None:
    backlog, coordinator = waiting(), Coordinator([Delivery.LATER, Delivery.REFUSED])
    shipper = Shipper(backlog, coordinator.deliver)
    asyncio.run(shipper.flush())
    backlog.put(KEY, b"b\n")
    asyncio.run(shipper.flush())
    assert [(sent.number, sent.data) for sent in coordinator.parts] == [
        (0, b"a\n"),
        (0, b"a\n"),
        (1, b"b\n"),
    ]
    assert backlog.part() is None


def test_the_end_of_an_attempt_waits_no_longer_than_is_said_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_shipping, "_FLUSH_SECONDS", 0.05)

    async def silent(_sent: LogPart) -> Delivery:
        await asyncio.sleep(3600)
        return Delivery.TAKEN

    backlog = waiting()
    began = time.monotonic()
    asyncio.run(Shipper(backlog, silent).flush())
    assert time.monotonic() - began < 60
    assert backlog.part() is not None


def test_a_part_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    async def scene() -> list[Delivery]:
        keeps = keeper(tmp_path)
        return [await keeps.keep(part(number)) for number in (0, 1, 1, 0, 2)]

    assert asyncio.run(scene()) == [Delivery.TAKEN] * 5
    assert log_path(tmp_path, KEY).read_text() == "0\n1\n2\n"


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [
        pytest.param(part(rank=0), Delivery.REFUSED, id="another worker's rank"),
        pytest.param(part(attempt=4), Delivery.REFUSED, id="an attempt that has not begun"),
        pytest.param(part(attempt=2), Delivery.TAKEN, id="late words of an earlier attempt"),
    ],
)
def test_a_worker_speaks_for_its_ranks_in_attempts_that_have_begun(
    tmp_path: Path, sent: LogPart, becomes: Delivery
) -> None:
    assert asyncio.run(keeper(tmp_path).keep(sent)) is becomes


def test_a_coordinator_that_has_begun_no_attempt_takes_them_later(tmp_path: Path) -> None:
    assert asyncio.run(keeper(tmp_path, newest=(0, 0)).keep(part())) is Delivery.LATER


def test_a_volume_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    hangs = threading.Event()

    class Hanging(LogVolume):
        def add(self, *_: object, **__: object) -> None:
            hangs.wait(60)

    async def scene() -> Delivery:
        keeps = LogKeeper(Hanging(tmp_path, 1), lambda: (3, 2), each=1)
        kept = [asyncio.create_task(keeps.keep(part(number))) for number in range(16)]
        await asyncio.sleep(0)
        found = await keeps.keep(part(16))
        hangs.set()
        await asyncio.gather(*kept)
        return found

    assert asyncio.run(scene()) is Delivery.LATER


def over_the_network(
    folder: Path, act: Callable[[ToCoordinator], Awaitable[None]], newest: tuple[int, int] = (3, 2)
) -> None:
    """The coordinator's listener, and a worker that knows where it is."""

    async def whole() -> None:
        secret, keeps = RunSecret(b"a secret"), keeper(folder, newest)

        async def unheard(*_: object) -> None:
            raise AssertionError

        listener = doors.listen("127.0.0.1", 0)
        hellos = Hellos(secret, unheard, keeps.receive, own_logger(io.StringIO()))  # type: ignore[arg-type]
        runner = await doors.serve(hellos.doors, listener)
        try:
            await act(ToCoordinator(listener.getsockname(), secret))
        finally:
            await runner.cleanup()

    asyncio.run(whole())


def test_a_part_comes_whole_over_the_gangs_listener(tmp_path: Path) -> None:
    data = bytes(range(256)) * 128

    async def act(way: ToCoordinator) -> None:
        sent = part().model_copy(update={"data": data})
        assert await way.deliver(sent) is Delivery.TAKEN
        assert await way.deliver(part(position=0)) is Delivery.REFUSED
        stranger = ToCoordinator(("", 0), RunSecret(b"another"))
        stranger._url = way._url
        assert await stranger.deliver(part(1)) is Delivery.LATER

    over_the_network(tmp_path, act)
    assert log_path(tmp_path, KEY).read_bytes() == data


def test_nobody_is_there(tmp_path: Path) -> None:
    way = ToCoordinator(("127.0.0.1", 1), RunSecret(b"a secret"))
    assert asyncio.run(way.deliver(part())) is Delivery.LATER
