"""A worker's listeners, and how much of each a stranger can have: connections, time and memory."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from aiohttp import web

from dtjob_trainer.wire import Connection

#: Connections without proof that one address, and all together, may hold.
CONNECTIONS, ALL_CONNECTIONS = 64, 512
#: In so much time a request's headers, its body, or a proof must have come.
PATIENCE_SECONDS = 5.0
BODY_BYTES = 64 * 1024
_HEADERS = 32
#: Connections that wait to be taken; so many are taken at once, before any of them is closed.
_BACKLOG = 512
_PORT_SECONDS = 15.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Guest = TypeVar("Guest")


class ConfigurationError(Exception):
    """This worker can't start as it is configured; the message names the remedy."""


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    return host == "localhost" or host.startswith("127.")


def listen(host: str, port: int, name: str) -> socket.socket:
    """Listen on ``port``; a predecessor that was just killed may hold it for a moment.

    Without a host on all addresses, IPv6 and IPv4: which of them reach a pod is the cluster's.
    """
    deadline = time.monotonic() + _PORT_SECONDS
    both = not host and socket.has_dualstack_ipv6()
    while True:
        try:
            return socket.create_server(
                (host, port),
                family=socket.AF_INET6 if both else socket.AF_INET,
                backlog=_BACKLOG,
                dualstack_ipv6=both,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ConfigurationError(
                f"{name} {port} on {host or 'all addresses'}: {os.strerror(error.errno or 0)}; "
                "choose another port or end the process that has it"
            ) from None


class Places(Generic[Guest]):
    """Who is connected without proof, by address. Pure.

    Whoever comes is let in, and one goes where there are too many: the oldest of the address that
    has too many, or has most. So nobody who holds all places keeps a probe or a worker out.
    """

    def __init__(self, each: int = CONNECTIONS, together: int = ALL_CONNECTIONS) -> None:
        self._each, self._together = each, together
        self._guests: dict[Guest, str] = {}
        self._by_address: dict[str, dict[Guest, None]] = {}

    def take(self, address: str, guest: Guest) -> Guest | None:
        """Let a guest in; who has to go for it."""
        self._guests[guest] = address
        mine = self._by_address.setdefault(address, {})
        mine[guest] = None
        if len(mine) <= self._each:
            if len(self._guests) <= self._together:
                return None
            mine = max(self._by_address.values(), key=len)
        gone = next(iter(mine))
        self.leave(gone)
        return gone

    def leave(self, guest: Guest) -> None:
        """A guest is gone, or has proved who it is."""
        if (address := self._guests.pop(guest, None)) is None:
            return
        del self._by_address[address][guest]
        if not self._by_address[address]:
            del self._by_address[address]


def address_of(transport: asyncio.BaseTransport) -> str:
    """Whose connection it is; of one that broke off meanwhile nothing is known."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


class Doors(web.Server):
    """An HTTP server of which a stranger can have little.

    A connection has `PATIENCE_SECONDS` for the headers of a request, and again for the next one.
    """

    def __init__(self, handler: Handler) -> None:
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
        self._places: Places[Any] = Places()

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
        """The connection is a worker's, and takes nobody's place."""
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


async def serve(doors: Doors, listener: socket.socket) -> web.ServerRunner:
    """Serve on a listener until the runner is cleaned up."""
    runner = web.ServerRunner(doors, shutdown_timeout=PATIENCE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=_BACKLOG).start()
    return runner
