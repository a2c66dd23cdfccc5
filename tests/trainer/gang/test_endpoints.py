"""What a stranger can do to a worker: nothing that stops its gang or fills its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from dtjob_api.wire.gang import Directive, Hello
from dtjob_cli.runs import ports
from dtjob_serving.doors import BODY_BYTES
from dtjob_trainer.gang.endpoints import HELLO_PATH
from dtjob_trainer.identity.credentials import RunSecret
from tests.support.checkout import SUPPORT
from tests.support.strangers import http_attacks
from tests.support.strangers.http_attacks import ATTACKS, PATIENCE, Door, Tried


@dataclass
class Worker(Tried):
    """A process that serves what everybody may see, and the gang's hellos."""

    shown: Door
    hello: Door
    secret: RunSecret

    def probe(self) -> int:
        """A kubelet's question; each is a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.shown.port}/healthz", timeout=5).status_code

    def say(self, known: int = -1, client: httpx.Client | None = None) -> httpx.Response:
        greeting = Hello(position=1, incarnation="a", ready=True, known=known)
        body = greeting.model_dump_json().encode()
        shown = {"Authorization": self.secret.show(body)}
        url = f"http://127.0.0.1:{self.hello.port}{HELLO_PATH}"
        return (client or httpx).post(url, content=body, headers=shown, timeout=10)

    def works(self) -> bool:
        answer = self.say()
        return self.probe() == 200 and Directive.model_validate_json(answer.text).revision == 7


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("doors")
    (secret := folder / "secret").write_bytes(b"secret")
    port = ports.free(2)
    log, program = folder / "log", SUPPORT / "strangers" / "open_endpoints.py"
    with http_attacks.process(program, log, secret, port, port + 1) as pid:
        shown, hello = Door(port, "GET /report"), Door(port + 1, f"POST {HELLO_PATH}")
        worker = Worker(pid, log, shown, hello, RunSecret(secret.read_bytes()))
        assert worker.works()
        yield worker


@pytest.fixture
def unharmed(worker: Worker) -> Iterator[Worker]:
    with http_attacks.unharmed(worker):
        yield worker


both = pytest.mark.parametrize("door", ["shown", "hello"])


@both
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stranger_has_little(unharmed: Worker, door: str, attack: str) -> None:
    ATTACKS[attack](getattr(unharmed, door))


def test_a_worker_says_its_hellos_on_one_connection(unharmed: Worker) -> None:
    with httpx.Client() as client:
        answers = [unharmed.say(client=client) for _ in range(3)]
        streams = [answer.extensions["network_stream"] for answer in answers]
        assert len({stream.get_extra_info("client_addr") for stream in streams}) == 1
    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_body_that_does_not_come_is_waited_for_a_while(unharmed: Worker) -> None:
    with unharmed.hello.connection() as link:
        link.sendall(unharmed.hello.head("Content-Length: 100"))
        began = time.monotonic()
        assert link.recv(1000).startswith(b"HTTP/1.1 408")
        assert PATIENCE / 2 < time.monotonic() - began < 10 * PATIENCE


def test_a_bomb_is_not_unpacked(unharmed: Worker) -> None:
    packed = b"\x1f\x8b" + b"\x00" * 1000
    url = f"http://127.0.0.1:{unharmed.hello.port}{HELLO_PATH}"
    answer = httpx.post(url, content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("size", "status"), [(BODY_BYTES, 401), (BODY_BYTES + 1, 413)], ids=["largest", "too large"]
)
def test_of_a_hello_without_proof_only_so_much_is_read(
    unharmed: Worker, size: int, status: int
) -> None:
    url = f"http://127.0.0.1:{unharmed.hello.port}{HELLO_PATH}"
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
    url = f"http://127.0.0.1:{unharmed.shown.port}{path}"
    assert httpx.request(method, url, content=b"x").status_code == status


def test_hellos_have_a_listener_of_their_own(unharmed: Worker) -> None:
    for path in ("/healthz", "/report", "/metrics", HELLO_PATH):
        assert httpx.get(f"http://127.0.0.1:{unharmed.hello.port}{path}").status_code == 404


@both
@pytest.mark.slow
@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_a_crowd_of_connections_stops_nobody(unharmed: Worker, door: str, count: int) -> None:
    """A probe of the very same address, and a hello that waits meanwhile."""
    with http_attacks.crowd(unharmed, getattr(unharmed, door), count) as held:
        assert unharmed.say(known=7).status_code == 200
    assert http_attacks.bounded(held)
