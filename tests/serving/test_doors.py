"""What of a stranger's bytes reaches the parser, and the handler."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.streams import StreamReader

from dtjob_serving import doors
from dtjob_serving.framing import HEAD_BYTES
from dtjob_serving.places import Places

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


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
    """However much of it comes at once: parsing stops the event loop."""
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
    assert parsed <= HEAD_BYTES + doors.BODY_BYTES
    assert chunks == 0


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [f"127.0.1.{last}" for last in range(1, 71)]],
    ids=["his own", "seventy"],
)
def test_who_asks_at_once_is_heard_before_he_has_to_go(addresses: Sequence[str]) -> None:
    """However many come right behind him, also where an address has few places: the operator's.

    All are connected before any of them is taken, so the kernel keeps them meanwhile.
    """

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(text="heard")
        response.force_close()
        return response

    async def scene() -> bytes:
        listener = doors.listen("127.0.0.1", 0)
        runner = await doors.serve(doors.Doors(answer, Places(16, 64)), listener)
        with contextlib.ExitStack() as links:

            def asked(address: str) -> socket.socket:
                link = links.enter_context(socket.socket())
                link.settimeout(5)
                link.bind((address, 0))
                link.connect(listener.getsockname())
                link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return link

            honest = asked("127.0.0.1")
            for address in itertools.islice(itertools.cycle(addresses), 200):
                asked(address)
            reader, writer = await asyncio.open_connection(sock=honest)
            said = await reader.read()
            writer.close()
        await runner.cleanup()
        return said

    assert asyncio.run(scene()).endswith(b"heard")
