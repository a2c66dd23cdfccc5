"""Probes and metrics on one port, which whoever reaches it may read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from dtjob_operator.run.metrics import Metrics
from dtjob_serving import doors, pages
from dtjob_serving.places import Places

#: Connections that one address, and all together, may hold. A kubelet and Prometheus need few, and
#: with each of a cluster's figures that nobody reads may be held in memory.
CONNECTIONS, ALL_CONNECTIONS = 16, 64


class HealthServer:
    """Serves `/healthz` (the process answers), `/readyz` and `/metrics`.

    Parameters
    ----------
    trouble
        Why the operator does not do its work at the moment; None while it does.
    """

    def __init__(self, metrics: Metrics, trouble: Callable[[], str | None]) -> None:
        self._metrics = metrics
        self._trouble = trouble
        self._runner: web.ServerRunner | None = None
        self._log = structlog.get_logger("health")

    async def start(self, port: int) -> None:
        """Listen on all addresses.

        Raises
        ------
        OSError
            The port is taken.
        """
        places: Places[Any] = Places(CONNECTIONS, ALL_CONNECTIONS)
        shown = pages.shown(
            {"/healthz": _healthz, "/readyz": self._readyz, "/metrics": self._exposition},
            self._broken,
            places,
        )
        self._runner = await doors.serve(shown, doors.listen("", port))

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _readyz(self) -> web.Response:
        trouble = self._trouble()
        return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)

    def _exposition(self) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.exposition(), headers=headers)

    def _broken(self, path: str, error: Exception) -> None:
        self._log.error("a page could not be shown", path=path, exc_info=error)


def _healthz() -> web.Response:
    return web.Response(text="ok\n")
