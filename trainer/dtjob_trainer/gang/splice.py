"""The way of ranks to the store, which listens on the coordinator's loopback alone.

torch's TCPStore authenticates nobody. So ranks of other workers connect to their own supervisor,
which connects to the coordinator's and shows the attempt's key before it passes on any byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Callable

from dtjob_serving.doors import AT_ONCE, BACKLOG, PATIENCE_SECONDS
from dtjob_serving.places import Places, address_of

KEY_BYTES = 32
#: As it is sent, and as a directive holds it.
_KEY_LETTERS = 2 * KEY_BYTES
_WELCOME = b"\n"
_CHUNK = 64 * 1024
#: How many connections one worker opens at a time: they share an address.
_OPENING = 8

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StoreGate:
    """The coordinator's port for other workers' ranks: without the key nobody reaches the store.

    Parameters
    ----------
    key
        The running attempt's, in hexadecimal; empty while there is none.
    store
        Port of the store on the loopback.
    """

    def __init__(self, key: Callable[[], str], store: int) -> None:
        self._key, self._store = key, store
        self._places: Places[asyncio.StreamWriter] = Places()
        self._server: asyncio.Server | None = None
        self._carrying: dict[asyncio.Task[None], str] = {}

    async def open(self, listener: socket.socket) -> None:
        """Answer on a listener."""
        self._server = await asyncio.start_server(
            self._meet, sock=listener, limit=_KEY_LETTERS, backlog=AT_ONCE
        )
        listener.listen(BACKLOG)

    async def close(self) -> None:
        """Stop listening, and drop all connections."""
        if self._server is not None:
            self._server.close()
        await _cancelled(list(self._carrying))

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        gone = self._places.take(address_of(writer.transport), writer)
        if gone is not None:
            gone.transport.abort()
        self._carrying[task] = ""
        try:
            if (key := await self._proved(reader)) is not None:
                self._places.leave(writer)
                self._carrying[task] = key
                await _cancelled(self._of_former_attempts(key))
                writer.write(_WELCOME)
                await _splice((reader, writer), await _connected("127.0.0.1", self._store))
        except (OSError, asyncio.CancelledError):
            pass  # one of the two ends went, or this is closed
        finally:
            self._places.leave(writer)
            del self._carrying[task]
            _turn_away(writer)

    def _of_former_attempts(self, key: str) -> list[asyncio.Task[None]]:
        return [task for task, theirs in self._carrying.items() if theirs not in ("", key)]

    async def _proved(self, reader: asyncio.StreamReader) -> str | None:
        """The attempt's key, if the caller showed it in time."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                shown = await reader.readexactly(_KEY_LETTERS)
        except (TimeoutError, EOFError):
            return None
        key = self._key()
        return key if key and hmac.compare_digest(shown, key.encode()) else None


class Tunnel:
    """This worker's loopback port that leads its ranks of one attempt to the store."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._host, self._port, self._key = host, port, key
        self._opening = asyncio.Semaphore(_OPENING)
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Listen; returns the port."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._carry, sock=listener, limit=_CHUNK)
        port: int = listener.getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, and drop all connections."""
        if self._server is not None:
            self._server.close()
        await _cancelled(list(self._carrying))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            await _splice((reader, writer), await self._admitted())
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the rank tries again, or this is closed
        finally:
            self._carrying.discard(task)
            _turn_away(writer)

    async def _admitted(self) -> Streams:
        """A connection to the store, by way of the gate."""
        async with self._opening, asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await _connected(self._host, self._port)
            try:
                writer.write(self._key.encode())
                await reader.readexactly(len(_WELCOME))
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer


def _turn_away(writer: asyncio.StreamWriter) -> None:
    """Close a connection that was not admitted."""
    if not writer.transport.is_closing():
        writer.transport.abort()


async def _connected(host: str, port: int) -> Streams:
    return await asyncio.open_connection(host, port, limit=_CHUNK)


async def _splice(one: Streams, other: Streams) -> None:
    """Pass bytes both ways until both sides have sent all, or one has gone."""
    whole = False
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(one[0], other[1]))
            group.create_task(_pump(other[0], one[1]))
        whole = True
    except* OSError:
        pass
    finally:
        for _, writer in (one, other):
            if whole:
                writer.close()  # what it has not read yet still comes
            else:
                writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks of connections, which return then: Python 3.11 logs each that ends as cancelled."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
