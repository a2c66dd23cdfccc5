"""Probes and metrics on one port, which whoever reaches it may read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from dtjob_operator.run.metrics import Metrics
from dtjob_serving import doors, pages
from dtjob_serving.places import Places

#: Connections that one address, and all together, may hold. A kubelet and Prometheus need few, and
#: with each of a cluster's figures that nobody reads may be held in memory.
CONNECTIONS, ALL_CONNECTIONS = 16, 64


@dataclass(frozen=True)
class Condition:
    """What a probe is answered: whether all is well, and how things stand."""

    well: bool = True
    words: str = "ok"


class HealthServer:
    """Serves `/healthz`, `/readyz` and `/metrics`.

    Parameters
    ----------
    liveness
        Not well where nothing but a new process helps.
    readiness
        Not well where jobs are not looked after, or could not be where another operator fails.
    """

    def __init__(
        self,
        metrics: Metrics,
        liveness: Callable[[], Condition],
        readiness: Callable[[], Condition],
    ) -> None:
        self._metrics = metrics
        self._liveness = liveness
        self._readiness = readiness
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
            {
                "/healthz": lambda: _shown(self._liveness()),
                "/readyz": lambda: _shown(self._readiness()),
                "/metrics": self._exposition,
            },
            self._broken,
            places,
        )
        self._runner = await doors.serve(shown, doors.listen("", port))

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _exposition(self) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.exposition(), headers=headers)

    def _broken(self, path: str, error: Exception) -> None:
        self._log.error("a page could not be shown", path=path, exc_info=error)


def _shown(condition: Condition) -> web.Response:
    return web.Response(text=f"{condition.words}\n", status=200 if condition.well else 503)
