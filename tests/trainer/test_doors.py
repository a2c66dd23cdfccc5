"""What a stranger can do to a worker: nothing that stops its gang or fills its memory."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.streams import StreamReader

from dtjob_cli import ports
from dtjob_trainer import doors
from dtjob_trainer.credentials import RunSecret
from dtjob_trainer.doors import Places
from dtjob_trainer.endpoints import HELLO_PATH
from dtjob_trainer.gang import Directive, Hello
from dtjob_trainer.wire import HEAD_BYTES

HERE = Path(__file__).parent
BODY_BYTES = 64 * 1024
#: What a listener may hold of strangers at most, with what a process grows by itself.
GROWTH = 32 * 2**20
#: `doors.PATIENCE_SECONDS` of the process that is tried.
PATIENCE = 1.0


@pytest.mark.parametrize("together", [3, 100])
def test_the_oldest_of_a_crowd_has_to_go(together: int) -> None:
    places: Places[str] = Places(each=2, together=together)
    assert [places.take("a", guest) for guest in ("a1", "a2", "a3", "a4")] == [
        None,
        None,
        "a1",
        "a2",
    ]
    assert places.take("b", "b1") is None
    assert places.take("c", "c1") == ("a3" if together == 3 else None)


def test_who_proved_himself_takes_no_place() -> None:
    places: Places[str] = Places(each=1)
    assert places.take("a", "a1") is None
    places.leave("a1")
    places.leave("a1")
    assert places.take("a", "a2") is None
    assert places.take("a", "a3") == "a2"


@dataclass
class Worker:
    """A process that serves what everybody may see, and the gang's hellos."""

    pid: int
    shown: int
    hello: int
    secret: RunSecret
    log: Path

    @property
    def resident(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def probe(self) -> int:
        """A kubelet's question; each is a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.shown}/healthz", timeout=5).status_code

    def say(self, known: int = -1, client: httpx.Client | None = None) -> httpx.Response:
        said = Hello(ordinal=1, incarnation="a", ready=True, known=known)
        body = said.model_dump_json().encode()
        shown = {"Authorization": self.secret.show(body)}
        url = f"http://127.0.0.1:{self.hello}{HELLO_PATH}"
        return (client or httpx).post(url, content=body, headers=shown, timeout=10)

    def works(self) -> bool:
        answer = self.say()
        return self.probe() == 200 and Directive.model_validate_json(answer.text).revision == 7


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("doors")
    (secret := folder / "secret").write_bytes(b"secret")
    port = ports.free(2)
    script = str(HERE / "open_doors.py")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, script, str(PATIENCE), str(secret), str(port), str(port + 1)],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    worker = Worker(pid, port, port + 1, RunSecret(secret), folder / "log")
    assert worker.works()
    yield worker
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def unharmed(worker: Worker) -> Iterator[Worker]:
    """Answers as before when the test is over, and has not grown."""
    before = worker.resident
    yield worker
    assert worker.works()
    assert worker.resident - before < GROWTH
    assert "Traceback" not in worker.log.read_text()


both = pytest.mark.parametrize("door", ["shown", "hello"])


def connection(worker: Worker, door: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", getattr(worker, door)), timeout=30)


def poured(link: socket.socket, chunk: bytes, most: int) -> int:
    """How many bytes a worker takes before it closes the connection."""
    sent = 0
    try:
        while sent < most:
            sent += link.send(chunk)
    except OSError:
        pass
    return sent


@both
def test_headers_without_end_are_closed(unharmed: Worker, door: str) -> None:
    with connection(unharmed, door) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert poured(link, b"X-Filler: " + b"x" * 1000 + b"\r\n", 64 * 2**20) < 16 * 2**20


@both
@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["nothing", "half a line"])
def test_headers_that_do_not_come_are_waited_for_a_while(
    unharmed: Worker, door: str, first: bytes
) -> None:
    """However the bytes are spread over the time."""
    with connection(unharmed, door) as link:
        link.sendall(first)
        began = time.monotonic()
        while not select.select([link], [], [], 0.1)[0]:
            assert time.monotonic() - began < 10 * PATIENCE
            if first:
                with contextlib.suppress(OSError):
                    link.sendall(b"T")
        assert time.monotonic() - began > PATIENCE / 2


@both
@pytest.mark.parametrize("length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_body_of_a_gigabyte_is_not_taken(unharmed: Worker, door: str, length: bytes) -> None:
    path = HELLO_PATH.encode() if door == "hello" else b"/report"
    method = b"POST" if door == "hello" else b"GET"
    with connection(unharmed, door) as link:
        link.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
        assert poured(link, chunk, 10**9) < 16 * 2**20


POST = f"POST {HELLO_PATH} HTTP/1.1\r\nHost: x\r\n".encode()
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@both
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (CHUNKED, b"411"),
        (POST + b"transfer-encoding:gzip\r\n\r\n", b"411"),
        (POST + b"Content-Length: 65537\r\n\r\n", b"413"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (POST + b"A: b\r\n" * 3000, b"431"),
    ],
    ids=["chunks", "another encoding", "long body", "tunnel", "long head"],
)
def test_a_head_is_refused_before_its_body_comes(
    unharmed: Worker, door: str, head: bytes, status: bytes
) -> None:
    with connection(unharmed, door) as link:
        link.sendall(head)
        assert link.recv(1000).startswith(b"HTTP/1.1 " + status)
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(1000) == b""


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + b"1\r\nx\r\n" * 30_000,
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 30_000,
        CHUNKED + b"1;" + b"x" * 200_000,
        POST + b"A: b\r\n" * 30_000,
        POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000,
        POST + b"Content-Length: 1\r\n\r\n" + b"x" * 200_000,
        (POST + b"Content-Length: 0\r\n\r\n") * 3000,
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + CHUNKED + b"1\r\nx\r\n" * 30_000,
    ],
    ids=["chunks", "trailers", "extension", "headers", "body", "more", "requests", "tunnel"],
)
def test_of_what_a_stranger_sends_little_is_parsed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it comes at once: parsing stops the event loop, and its gang's pings."""
    parsed, chunks = 0, 0
    feed, begin = web.RequestHandler.data_received, StreamReader.begin_http_chunk_receiving

    def counted(handler: web.RequestHandler, data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        feed(handler, data)

    def begun(payload: StreamReader) -> None:
        nonlocal chunks
        chunks += 1
        begin(payload)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await doors.body(request)
        return web.Response()

    async def scene() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        runner = await doors.serve(doors.Doors(answer), listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(sent)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.transport.abort()
        await runner.cleanup()

    monkeypatch.setattr(web.RequestHandler, "data_received", counted)
    monkeypatch.setattr(StreamReader, "begin_http_chunk_receiving", begun)
    asyncio.run(scene())
    assert parsed <= HEAD_BYTES + BODY_BYTES
    assert chunks == 0


def test_a_worker_says_its_hellos_on_one_connection(unharmed: Worker) -> None:
    with httpx.Client() as client:
        answers = [unharmed.say(client=client) for _ in range(3)]
        streams = [answer.extensions["network_stream"] for answer in answers]
        assert len({stream.get_extra_info("client_addr") for stream in streams}) == 1
    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_body_that_does_not_come_is_waited_for_a_while(unharmed: Worker) -> None:
    with connection(unharmed, "hello") as link:
        head = f"POST {HELLO_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        link.sendall(head.encode())
        began = time.monotonic()
        assert link.recv(1000).startswith(b"HTTP/1.1 408")
        assert PATIENCE / 2 < time.monotonic() - began < 10 * PATIENCE


def test_a_bomb_is_not_unpacked(unharmed: Worker) -> None:
    packed = b"\x1f\x8b" + b"\x00" * 1000
    url = f"http://127.0.0.1:{unharmed.hello}{HELLO_PATH}"
    answer = httpx.post(url, content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("size", "status"), [(BODY_BYTES, 401), (BODY_BYTES + 1, 413)], ids=["largest", "too large"]
)
def test_of_a_hello_without_proof_only_so_much_is_read(
    unharmed: Worker, size: int, status: int
) -> None:
    url = f"http://127.0.0.1:{unharmed.hello}{HELLO_PATH}"
    assert httpx.post(url, content=b"x" * size).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/report", 405),
        ("DELETE", "/healthz", 405),
        ("POST", HELLO_PATH, 404),
        ("GET", "/", 404),
        ("GET", "/report/../gang/hello", 404),
    ],
)
def test_what_is_shown_to_everybody_changes_nothing(
    unharmed: Worker, method: str, path: str, status: int
) -> None:
    url = f"http://127.0.0.1:{unharmed.shown}{path}"
    assert httpx.request(method, url, content=b"x").status_code == status


def test_hellos_have_a_listener_of_their_own(unharmed: Worker) -> None:
    for path in ("/healthz", "/report", "/metrics", HELLO_PATH):
        assert httpx.get(f"http://127.0.0.1:{unharmed.hello}{path}").status_code == 404


def crowd(worker: Worker, door: str, count: int) -> list[socket.socket]:
    """Connections of one address that say nothing, each kept open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1000)), hard))
    return [connection(worker, door) for _ in range(count)]


@both
@pytest.mark.slow
@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_a_crowd_of_connections_stops_nobody(unharmed: Worker, door: str, count: int) -> None:
    """A probe of the very same address, and a hello that waits meanwhile."""
    links: list[socket.socket] = []
    before, held = unharmed.descriptors, 0
    try:
        for _ in range(10):
            links += crowd(unharmed, door, count // 10)
            assert unharmed.works()
            held = max(held, unharmed.descriptors - before)
        assert unharmed.say(known=7).status_code == 200
        assert held <= 64 + 8, "connections of one address"
    finally:
        for link in links:
            link.close()
