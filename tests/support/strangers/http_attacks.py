"""What a stranger does to an HTTP listener, of whichever process, and what little comes of it."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dtjob_serving.places import CONNECTIONS

#: What a listener may hold of strangers at most, with what a process grows by itself.
GROWTH = 32 * 2**20
#: What the kernel may take of a stranger before anybody has read it.
_IN_THE_KERNEL = 16 * 2**20
#: `doors.PATIENCE_SECONDS` of the process that is tried.
PATIENCE = 1.0


@dataclass
class Door:
    """A listener that is tried.

    Attributes
    ----------
    asks
        Method and path of a request that it reads.
    """

    port: int
    asks: str

    def head(self, *lines: str) -> bytes:
        """A request's head."""
        return "\r\n".join([f"{self.asks} HTTP/1.1", "Host: x", *lines, "", ""]).encode()

    def connection(self, source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
        """A connection from an address of the loopback, which may take little at a time."""
        link = socket.socket()
        if buffer:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        link.settimeout(30)
        link.bind((source, 0))
        link.connect(("127.0.0.1", self.port))
        return link


@dataclass
class Tried:
    """A process whose listeners are tried."""

    pid: int
    log: Path

    @property
    def resident(self) -> int:
        """Bytes of its memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def works(self) -> bool:
        """Whether it answers those whom it is for."""
        raise NotImplementedError


@contextlib.contextmanager
def process(script: Path, log: Path, *arguments: object) -> Iterator[int]:
    """A process that has printed its PID when it listens; its first argument is `PATIENCE`."""
    with log.open("wb") as stream:
        started = subprocess.Popen(
            [sys.executable, str(script), str(PATIENCE), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stream,
        )
    with started:
        try:
            assert started.stdout is not None
            yield int(started.stdout.readline())
        finally:
            started.kill()


@contextlib.contextmanager
def unharmed(tried: Tried) -> Iterator[None]:
    """Answers as before when it is over, and has not grown."""
    before = tried.resident
    yield
    assert tried.works()
    assert tried.resident - before < GROWTH
    assert "Traceback" not in tried.log.read_text()


def _poured(link: socket.socket, chunk: bytes, most: int) -> int:
    """How many bytes are taken before the connection is closed."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most:
            sent += link.send(chunk)
    return sent


def is_closed(link: socket.socket) -> bool:
    """Whether nothing more comes on a connection, once that is certain."""
    with contextlib.suppress(ConnectionResetError):
        return link.recv(1000) == b""
    return True


def _headers_without_end(door: Door) -> None:
    with door.connection() as link:
        link.sendall(door.head()[:-2])
        filler = b"X-Filler: " + b"x" * 1000 + b"\r\n"
        assert _poured(link, filler, 64 * 2**20) < _IN_THE_KERNEL


def _headers_that_do_not_come(first: bytes, door: Door) -> None:
    """They are waited for a while, however the bytes are spread over the time."""
    with door.connection() as link:
        link.sendall(first)
        began = time.monotonic()
        while not select.select([link], [], [], 0.1)[0]:
            assert time.monotonic() - began < 10 * PATIENCE
            if first:
                with contextlib.suppress(OSError):
                    link.sendall(b"T")
        assert time.monotonic() - began > PATIENCE / 2


def _body_of_a_gigabyte(length: str, door: Door) -> None:
    with door.connection() as link:
        link.sendall(door.head(length))
        assert _poured(link, b"10000\r\n" + b"x" * 2**16 + b"\r\n", 10**9) < _IN_THE_KERNEL


def _refused(status: str, lines: list[str], more: bytes, door: Door) -> None:
    """Before the body comes, and also where it has come already."""
    with door.connection() as link:
        with contextlib.suppress(ConnectionError):
            link.sendall(door.head(*lines) + more)
        # What was sent and is not read may reset the connection before the answer is seen.
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = link.recv(1000)
        assert answer.startswith(f"HTTP/1.1 {status}".encode()) or (more and not answer)
        assert is_closed(link)


def _tunnel(door: Door) -> None:
    _refused("405", [], b"", Door(door.port, "CONNECT x:1"))


def _requests_without_waiting(door: Door) -> None:
    """A request that does not wait for the answer before it ends the connection."""
    with door.connection() as link:
        with contextlib.suppress(ConnectionError):
            link.sendall(door.head() * 3000)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := link.recv(2**16):
                answer += more
        assert answer.count(b"HTTP/1.1 ") <= 1


ATTACKS: dict[str, Callable[[Door], None]] = {
    "headers without end": _headers_without_end,
    "no headers": partial(_headers_that_do_not_come, b""),
    "half a header": partial(_headers_that_do_not_come, b"GET / HTTP/1.1\r\nX: "),
    "a gigabyte declared": partial(_body_of_a_gigabyte, "Content-Length: 1000000000"),
    "a gigabyte in chunks": partial(_body_of_a_gigabyte, "Transfer-Encoding: chunked"),
    "chunks": partial(_refused, "411", ["Transfer-Encoding: chunked"], b""),
    "chunks of a byte": partial(
        _refused, "411", ["Transfer-Encoding: chunked"], b"1\r\nx\r\n" * 30_000
    ),
    "another encoding": partial(_refused, "411", ["transfer-encoding:gzip"], b""),
    "a long body": partial(_refused, "413", ["Content-Length: 65537"], b""),
    "a long head": partial(_refused, "431", ["A: b"] * 3000, b""),
    "a tunnel": _tunnel,
    "requests without waiting": _requests_without_waiting,
}


@contextlib.contextmanager
def crowd(tried: Tried, door: Door, count: int, says: bytes = b"") -> Iterator[int]:
    """Connections of one address that stay open and read nothing; how many the process had at most.

    Who is honest is answered all the while, at the very same address.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1000)), hard))
    before, held = tried.descriptors, 0
    with contextlib.ExitStack() as links:
        for number in range(count):
            link = links.enter_context(door.connection(buffer=4096 if says else 0))
            link.sendall(says)
            if number % (count // 10) == 0:
                assert tried.works()
                held = max(held, tried.descriptors - before)
        assert tried.works()
        yield max(held, tried.descriptors - before)


def bounded(held: int, connections: int = CONNECTIONS) -> bool:
    """Whether so many descriptors are those of one address; some are those of who is honest."""
    return held <= connections + 8
