"""Strangers on the way to the store: nothing of theirs reaches it, and little of them is kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dtjob_trainer.gang import splice
from dtjob_trainer.gang.splice import StoreGate, Tunnel

KEY, OTHER = "ab" * splice.KEY_BYTES, "cd" * splice.KEY_BYTES


@dataclass
class Store:
    """Notes every byte that reaches it, and says it back."""

    connections: int = 0
    received: bytearray = field(default_factory=bytearray)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65536):
            self.received += data
            writer.write(data)
        writer.close()


@dataclass
class Way:
    """A store, the gate before it, and the gate's key as it is now."""

    store: Store
    port: int
    key: str = KEY


@contextlib.asynccontextmanager
async def way() -> AsyncIterator[Way]:
    store = Store()
    behind = await asyncio.start_server(store.meet, "127.0.0.1", 0)
    listener = socket.create_server(("127.0.0.1", 0))
    found = Way(store, listener.getsockname()[1])
    gate = StoreGate(lambda: found.key, behind.sockets[0].getsockname()[1])
    await gate.open(listener)
    try:
        yield found
    finally:
        await gate.close()
        behind.close()


async def answer_through(port: int, words: bytes) -> bytes:
    """What comes back of the words of a rank."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def run(scene: Callable[[Way], Awaitable[None]]) -> None:
    """Play a scene, after which asyncio has no error to tell of."""
    errors: list[dict[str, Any]] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: errors.append(what))
        async with asyncio.timeout(60), way() as found:
            await scene(found)

    asyncio.run(whole())
    assert errors == []


def test_ranks_reach_the_store_through_their_supervisor() -> None:
    words = bytes(range(256)) * 5000

    async def scene(found: Way) -> None:
        tunnel = Tunnel("127.0.0.1", found.port, KEY)
        assert await answer_through(await tunnel.open(), words) == words
        assert bytes(found.store.received) == words
        await tunnel.close()

    run(scene)


async def pair() -> tuple[splice.Streams, splice.Streams]:
    """Both ends of a connection in which the kernel keeps little."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one, other = [await asyncio.open_connection(sock=end, limit=256) for end in ends]
    return one, other


def test_who_reads_late_gets_all() -> None:
    """What was passed on last is not dropped when both sides have sent all."""
    words = bytes(range(256)) * 160

    async def scene(_way: Way) -> None:
        (rank, ours), (theirs, store) = await pair(), await pair()
        store[1].write(words)
        for _, writer in (rank, store):
            writer.write_eof()
        await splice._splice(theirs, ours)
        assert await rank[0].read() == words
        for _, writer in (rank, store):
            writer.close()

    run(scene)


def test_many_ranks_of_one_worker_come_at_once() -> None:
    """More than places for strangers: none of them is taken for one."""

    async def scene(found: Way) -> None:
        tunnel = Tunnel("127.0.0.1", found.port, KEY)
        port = await tunnel.open()

        async def rank(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"%d" % number)
            writer.write_eof()
            assert await reader.read() == b"%d" % number
            writer.close()

        await asyncio.gather(*(rank(number) for number in range(200)))
        await tunnel.close()

    run(scene)


async def closed(port: int, words: bytes, *, eof: bool = False) -> bytes:
    """What a stranger gets before it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words)
        if eof:
            writer.write_eof()
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "words",
    [b"\x00" * 64, OTHER.encode(), KEY.upper().encode(), b"GET / HTTP/1.1\r\n" * 8, b"x" * 10**6],
    ids=["zeros", "other key", "upper case", "HTTP", "a megabyte"],
)
def test_a_stranger_is_closed_before_a_byte_reaches_the_store(words: bytes) -> None:
    async def scene(found: Way) -> None:
        assert await closed(found.port, words) == b""
        assert await closed(found.port, KEY.encode()[:-1], eof=True) == b""
        assert found.store.connections == 0

    run(scene)


def test_without_an_attempt_there_is_no_key() -> None:
    async def scene(found: Way) -> None:
        found.key = ""
        assert await closed(found.port, KEY.encode()) == b""
        assert found.store.connections == 0

    run(scene)


def test_the_way_of_a_former_attempt_is_closed() -> None:
    """Its ranks are gone, or cut off and late."""

    async def scene(found: Way) -> None:
        old = Tunnel("127.0.0.1", found.port, KEY)
        port = await old.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"old")
        assert await reader.readexactly(3) == b"old"
        found.key = OTHER
        new = Tunnel("127.0.0.1", found.port, OTHER)
        assert await answer_through(await new.open(), b"new") == b"new"
        assert await reader.read() == b""
        assert await answer_through(port, b"again") == b""
        writer.close()
        await asyncio.gather(old.close(), new.close())

    run(scene)


def test_who_is_connected_when_it_is_closed_is_not_reported() -> None:
    """A stranger who waits, and a rank: neither is an error of the program."""

    async def scene(found: Way) -> None:
        _, stranger = await asyncio.open_connection("127.0.0.1", found.port)
        tunnel = Tunnel("127.0.0.1", found.port, KEY)
        reader, rank = await asyncio.open_connection("127.0.0.1", await tunnel.open())
        rank.write(b"here")
        assert await reader.readexactly(4) == b"here"
        await tunnel.close()
        stranger.close()
        rank.close()

    run(scene)


def test_who_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "PATIENCE_SECONDS", 0.2)

    async def scene(found: Way) -> None:
        assert await closed(found.port, b"") == b""
        assert await closed(found.port, KEY.encode()[:-1]) == b""
        assert found.store.connections == 0

    run(scene)


def test_a_crowd_of_strangers_keeps_no_rank_out() -> None:
    async def scene(found: Way) -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(300)]
        tunnel = Tunnel("127.0.0.1", found.port, KEY)
        assert await answer_through(await tunnel.open(), b"through") == b"through"
        assert found.store.connections == 1
        await tunnel.close()
        for _, writer in crowd:
            writer.transport.abort()

    run(scene)


def test_a_key_is_read_however_many_come_right_behind_it() -> None:
    """Of one address, and all of them before any is taken."""

    async def scene(found: Way) -> None:
        with contextlib.ExitStack() as links:

            def connected(words: bytes) -> socket.socket:
                link = socket.create_connection(("127.0.0.1", found.port), timeout=5)
                link.sendall(words)
                return links.enter_context(link)

            rank = connected(KEY.encode() + b"through")
            for _ in range(200):
                connected(b"")
            reader, writer = await asyncio.open_connection(sock=rank)
            assert await reader.readexactly(8) == b"\nthrough"
            writer.close()

    run(scene)
