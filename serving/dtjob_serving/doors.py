"""A listener, and how much of it a stranger can have: connections, time and memory."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dtjob_serving.connection import Connection
from dtjob_serving.places import Places, address_of

#: In so much time a request's headers, its body, or a proof must have come.
PATIENCE_SECONDS = 5.0
BODY_BYTES = 64 * 1024
_HEADERS = 32
#: Connections that wait in the kernel to be taken.
BACKLOG = 512
#: So many are taken in a turn of the event loop. An answer comes two turns after its connection, so
#: three times as many may come in between: they must fit into the places of one address, or an
#: honest client would have to go for them before it was served.
AT_ONCE = 4

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Doors(web.Server):
    """An HTTP server of which a stranger can have little.

    A connection has `PATIENCE_SECONDS` for the headers of a request, and again for the next one. An
    answer may be read as slowly as one likes, for as long as nobody else needs the place.

    Parameters
    ----------
    places
        Of connections, so also of answers in memory that nobody has read yet.
    """

    def __init__(self, handler: Handler, places: Places[Any] | None = None) -> None:
        super().__init__(
            handler,
            request_factory=_request,
            handler_cancellation=True,
            keepalive_timeout=PATIENCE_SECONDS,
            lingering_time=0,  # what nobody reads is not waited for
            auto_decompress=False,
            max_headers=_HEADERS,
            access_log=None,
            logger=_silent(),
        )
        self._places: Places[Any] = places or Places()

    def __call__(self) -> Connection:
        """The side of a new connection that speaks HTTP."""
        return Connection(self, BODY_BYTES, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """A connection came; another may have to go."""
        super().connection_made(handler, transport)
        gone = self._places.take(address_of(transport), handler)
        if gone is not None and (held := self._connections.get(gone)) is not None:
            held.abort()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """A connection went."""
        self._places.leave(handler)
        super().connection_lost(handler, exc)

    def proved(self, request: web.BaseRequest) -> None:
        """The connection is no stranger's, and takes nobody's place."""
        self._places.leave(request.protocol)


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES
    )


def _silent() -> logging.Logger:
    """What strangers send is not worth a line each."""
    logger = logging.Logger("dtjob.doors")
    logger.addHandler(logging.NullHandler())
    return logger


async def body(request: web.BaseRequest) -> bytes:
    """The body of a request, of `BODY_BYTES` at most.

    Raises
    ------
    web.HTTPException
        It is larger, or does not come.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:
        raise web.HTTPBadRequest from None


def listen(host: str, port: int) -> socket.socket:
    """Listen on `port`.

    Without a host on all addresses, IPv6 and IPv4: which of them reach a pod is the cluster's.

    Raises
    ------
    OSError
        The port is taken, or not to be had.
    """
    both = not host and socket.has_dualstack_ipv6()
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if both else socket.AF_INET,
        backlog=BACKLOG,
        dualstack_ipv6=both,
    )


async def serve(doors: Doors, listener: socket.socket) -> web.ServerRunner:
    """Serve on a listener until the runner is cleaned up."""
    runner = web.ServerRunner(doors, shutdown_timeout=PATIENCE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=AT_ONCE).start()
    listener.listen(BACKLOG)  # asyncio has one figure for both
    return runner
