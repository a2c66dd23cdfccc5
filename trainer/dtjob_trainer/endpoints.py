"""The one port of a worker: probes, report, metrics and, on ordinal 0, the gang's hello."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from dtjob_trainer.gang import Directive, Hello

#: A hello is a few ends of at most 1 KiB and the GPUs of one node.
_HELLO_BYTES = 256 * 1024


def application(
    *,
    ready: Callable[[], bool],
    report: Callable[[], dict[str, Any]],
    registry: CollectorRegistry,
    hello: Callable[[Hello], Awaitable[Directive]] | None,
) -> web.Application:
    """Routes of a worker.

    ``/healthz`` says only that the supervisor's event loop turns: a slow step never fails it.
    ``/readyz`` is 200 once this worker can join or is part of an attempt.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if ready() else web.Response(status=503, text="starting\n")

    async def get_report(_request: web.Request) -> web.Response:
        return web.Response(
            text=json.dumps(report(), separators=(",", ":")), content_type="application/json"
        )

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def post_hello(request: web.Request) -> web.Response:
        try:
            said = Hello.model_validate_json(await request.read())
        except ValidationError as error:
            return web.Response(status=400, text=f"not a hello: {error.error_count()} errors\n")
        assert hello is not None
        directive = await hello(said)
        return web.Response(text=directive.model_dump_json(), content_type="application/json")

    app = web.Application(client_max_size=_HELLO_BYTES)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/report", get_report)
    app.router.add_get("/metrics", metrics)
    if hello is not None:
        app.router.add_post("/gang/hello", post_hello)
    return app
