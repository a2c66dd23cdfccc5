"""A proxy before the API server: records what a client asks for and can get in its way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from dtjob_cli.runs import ports
from tests.support.clusters.kube import wait_for

WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Asked:
    """One request and its answer's status, in the terms of RBAC."""

    verb: str
    group: str
    resource: str
    """With its subresource, as in `pods/status`."""
    namespace: str | None
    name: str | None
    dry_run: bool
    status: int
    time: float
    """Of the answer, by `time.time()`."""
    body: str
    """What a write sent."""

    @property
    def writes(self) -> bool:
        """Whether it may have changed the cluster; whose turn it is to work is no change."""
        changes = self.verb not in {"get", "list", "watch"} and self.resource != "leases"
        return changes and not self.dry_run and self.status < 300


class ApiProxy:
    """Plain HTTP on loopback, passed on to the API server with the caller's own credentials.

    Attributes
    ----------
    asked
        Every request to a resource so far, in the order of their answers.
    after_write
        Called with the number of writes that have taken effect, before the client is answered.
    refuse
        Called with method and path before anything is passed on; a status it returns is the
        answer.
    copies
        How often each event of a watch is passed on.
    delay
        Seconds by which a watch of that path is behind.
    """

    def __init__(self, kubeconfig: Path) -> None:
        cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._upstream = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self.asked: list[Asked] = []
        self.after_write: Callable[[int], None] = lambda _count: None
        self.refuse: Callable[[str, str], int | None] = lambda _method, _path: None
        self.copies = 1
        self.delay: Callable[[str], float] = lambda _path: 0.0
        self._loop = asyncio.new_event_loop()
        self._site: web.TCPSite | None = None
        # Below the ephemeral range, so that no passing connection has it after a disconnect.
        self.port = ports.free()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._set_up())
        self.connect()

    def connect(self) -> None:
        """Accept connections, on the same port every time."""
        self._run(self._listen())

    def disconnect(self) -> None:
        """Refuse connections and break those that stand, as a host that is gone does."""
        self._run(self._hang_up())

    def close(self) -> None:
        """Stop for good."""
        self._run(self._tear_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def kubeconfig(self, token: str) -> Path:
        """A kubeconfig of the holder of a token, by way of this proxy."""
        with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig", delete=False) as file:
            json.dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "proxy",
                    "clusters": [
                        {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
                    ],
                    "users": [{"name": "proxy", "user": {"token": token}}],
                    "contexts": [
                        {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
                    ],
                },
                file,
            )
        return Path(file.name)

    def writes(self) -> list[Asked]:
        """What has changed the cluster."""
        return [each for each in self.asked if each.writes]

    def settle(self) -> None:
        """Wait until nothing has been written for two seconds."""

        def quiet() -> bool:
            before = len(self.writes())
            time.sleep(2)
            return len(self.writes()) == before

        wait_for("no more writes", quiet, 120)

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(120)  # type: ignore[arg-type]

    async def _set_up(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()

    async def _hang_up(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        assert self._runner.server
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _tear_down(self) -> None:
        await self._hang_up()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if status := self.refuse(request.method, request.path):
            self._note(request, status, b"")
            refusal = {"kind": "Status", "code": status, "message": "refused by the proxy"}
            return web.json_response(refusal, status=status)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        body = await request.read()
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=headers,
            data=body or None,
        ) as answer:
            self._note(request, answer.status, body)
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                if parse_qs(request.query_string).get("watch") == ["true"]:
                    await self._pass_on_events(request.path, answer, response)
                else:
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                await response.write_eof()
            return response

    async def _pass_on_events(
        self, path: str, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        """Each line of a watch, so often and so late as is set when it arrives; in their order."""
        lines: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def receive() -> None:
            try:
                async for line in answer.content:
                    for _ in range(self.copies):
                        lines.put_nowait((loop.time() + self.delay(path), line))
            finally:
                lines.put_nowait(None)

        receiving = asyncio.create_task(receive())
        try:
            while (due := await lines.get()) is not None:
                at, line = due
                await asyncio.sleep(max(0.0, at - loop.time()))
                await response.write(line)
        finally:
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                await receiving

    def _note(self, request: web.Request, status: int, body: bytes) -> None:
        asked = _asked(request, status, body)
        if asked is None:
            return
        self.asked.append(asked)
        if asked.writes:
            self.after_write(len(self.writes()))


def _asked(request: web.Request, status: int, body: bytes) -> Asked | None:
    """What a request means; None for discovery."""
    parts = request.path.strip("/").split("/")
    if parts[0] == "api":
        group, rest = "", parts[2:]
    elif parts[0] == "apis":
        group, rest = parts[1] if len(parts) > 1 else "", parts[3:]
    else:
        return None
    if not rest:
        return None
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    query = parse_qs(request.query_string)
    name = rest[1] if len(rest) > 1 else None
    resource = "/".join([rest[0], *rest[2:]])
    if request.method in WRITES:
        verb = _VERBS[request.method]
    elif query.get("watch") == ["true"]:
        verb = "watch"
    else:
        verb = "get" if name else "list"
    field = query.get("fieldSelector", [""])[0]
    if name is None and field.startswith("metadata.name="):
        name = field.removeprefix("metadata.name=")
    return Asked(
        verb=verb,
        group=group,
        resource=resource,
        namespace=namespace,
        name=name,
        dry_run="dryRun" in query or b'"dryRun"' in body,
        status=status,
        time=time.time(),
        body=body.decode(errors="replace"),
    )
