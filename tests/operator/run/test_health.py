"""The operator's own port: probes and figures for everybody, and little for who wants more."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
import structlog

from dtjob_cli.runs import ports
from dtjob_operator.run.health import CONNECTIONS, Condition, HealthServer
from dtjob_operator.run.metrics import Metrics
from dtjob_serving import doors
from tests.support.checkout import SUPPORT
from tests.support.strangers import http_attacks
from tests.support.strangers.http_attacks import ATTACKS, Door, Tried

#: The exposition has them twice, which is more than the kernel takes for who does not read.
FIGURES = 4 * 2**20
WELL = Condition()


@dataclass
class Operator(Tried):
    """A process that serves what an operator does."""

    door: Door

    def works(self) -> bool:
        url = f"http://127.0.0.1:{self.door.port}/healthz"
        return httpx.get(url, timeout=5).text == "ok\n"


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    log = tmp_path_factory.mktemp("health") / "log"
    port = ports.free()
    with http_attacks.process(SUPPORT / "strangers" / "open_health.py", log, port, FIGURES) as pid:
        operator = Operator(pid, log, Door(port, "GET /healthz"))
        assert operator.works()
        yield operator


@pytest.fixture
def unharmed(operator: Operator) -> Iterator[Operator]:
    with http_attacks.unharmed(operator):
        yield operator


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stranger_has_little(unharmed: Operator, attack: str) -> None:
    ATTACKS[attack](unharmed.door)


@pytest.mark.slow
def test_a_crowd_of_connections_stops_no_probe(unharmed: Operator) -> None:
    with http_attacks.crowd(unharmed, unharmed.door, 1000) as held:
        assert http_attacks.bounded(held, CONNECTIONS)


FIGURES_PLEASE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.slow
def test_figures_that_nobody_reads_are_kept_for_few(operator: Operator) -> None:
    """Each of them is held in memory until it is read."""
    with http_attacks.crowd(operator, operator.door, 2 * CONNECTIONS, FIGURES_PLEASE) as held:
        assert http_attacks.bounded(held, CONNECTIONS)


def test_who_reads_slowly_gets_all_figures(operator: Operator) -> None:
    """Longer than strangers are waited for, and while others come."""
    with operator.door.connection(buffer=2**16) as link:
        link.sendall(FIGURES_PLEASE)
        said = link.recv(1)
        with contextlib.ExitStack() as crowd:
            others = [
                crowd.enter_context(operator.door.connection(source="127.0.0.2"))
                for _ in range(2 * CONNECTIONS)
            ]
            for other in others:
                assert http_attacks.is_closed(other)
        while more := link.recv(2**20):
            said += more
    head, _, body = said.partition(b"\r\n\r\n")
    assert len(body) > FIGURES
    assert f"Content-Length: {len(body)}".encode() in head


def play(
    act: Callable[[httpx.AsyncClient, str], Awaitable[None]],
    metrics: Metrics | None = None,
    *,
    liveness: Condition = WELL,
    readiness: Condition = WELL,
) -> None:
    async def scene() -> None:
        health = HealthServer(metrics or Metrics(), lambda: liveness, lambda: readiness)
        port = ports.free()
        await health.start(port)
        async with httpx.AsyncClient(timeout=10) as client:
            try:
                await act(client, f"http://127.0.0.1:{port}")
            finally:
                await health.stop()
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/healthz")

    asyncio.run(scene())


@pytest.mark.parametrize("trouble", [None, "no API server"])
def test_probes_and_figures(trouble: str | None) -> None:
    async def act(client: httpx.AsyncClient, url: str) -> None:
        alive = await client.get(f"{url}/healthz")
        assert (alive.status_code, alive.text) == (200, "ok\n")
        ready = await client.get(f"{url}/readyz")
        assert ready.status_code == (503 if trouble else 200)
        assert ready.text == f"{trouble or 'ok'}\n"
        figures = await client.get(f"{url}/metrics")
        assert figures.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'dtjob_reconciles_total{result="ok"} 0.0' in figures.text

    play(act, readiness=Condition(trouble is None, trouble or "ok"))


def test_a_standby_is_ready_and_says_who_leads() -> None:
    async def act(client: httpx.AsyncClient, url: str) -> None:
        ready = await client.get(f"{url}/readyz")
        assert (ready.status_code, ready.text) == (200, "standby: other leads\n")

    play(act, readiness=Condition(True, "standby: other leads"))


def test_a_process_that_stands_still_is_to_be_ended() -> None:
    async def act(client: httpx.AsyncClient, url: str) -> None:
        alive = await client.get(f"{url}/healthz")
        assert (alive.status_code, alive.text) == (503, "jobs wait\n")

    play(act, liveness=Condition(False, "jobs wait"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/healthz", 200),
        ("GET", "/healthz?verbose", 200),
        ("GET", "/", 404),
        ("POST", "/report", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/metrics", 405),
    ],
)
def test_nothing_else_is_answered(method: str, path: str, status: int) -> None:
    async def act(client: httpx.AsyncClient, url: str) -> None:
        assert (await client.request(method, url + path)).status_code == status

    play(act)


def test_what_stops_the_figures_is_logged() -> None:
    class Broken(Metrics):
        def exposition(self) -> bytes:
            raise ValueError("no such label")

    async def act(client: httpx.AsyncClient, url: str) -> None:
        assert (await client.get(f"{url}/metrics")).status_code == 500
        assert (await client.get(f"{url}/healthz")).status_code == 200

    with structlog.testing.capture_logs() as logs:
        play(act, Broken())
    assert [(line["path"], str(line["exc_info"])) for line in logs] == [
        ("/metrics", "no such label")
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.ipv6)])
def test_it_is_reached_over_both_families(operator: Operator, address: str) -> None:
    with socket.create_connection((address, operator.door.port), timeout=5):
        pass


def test_a_port_that_is_taken_is_told_to_who_starts_it() -> None:
    async def scene() -> None:
        with socket.create_server(("", 0)) as taken:
            health = HealthServer(Metrics(), Condition, Condition)
            with pytest.raises(OSError, match=r"(?i)address already in use") as e:
                await health.start(taken.getsockname()[1])
            assert e.value.errno == errno.EADDRINUSE
            await health.stop()

    asyncio.run(scene())


def test_who_does_not_read_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        metrics = Metrics()
        metrics.reconciles.labels("x" * FIGURES)
        health = HealthServer(metrics, Condition, Condition)
        port = ports.free()
        await health.start(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(FIGURES_PLEASE)
        await reader.readexactly(1)
        async with asyncio.timeout(10):
            await health.stop()
        writer.transport.abort()

    monkeypatch.setattr(doors, "PATIENCE_SECONDS", 0.05)
    asyncio.run(scene())
