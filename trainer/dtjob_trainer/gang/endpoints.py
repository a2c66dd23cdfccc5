"""What a worker answers: to all, probes, report and metrics; worker 0, to its gang, also hellos.

What is served without proof changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from dtjob_api.wire.gang import Directive, Hello, LogPart
from dtjob_api.wire.well_known import LIVENESS_PATH, READINESS_PATH, REPORT_PATH
from dtjob_serving import doors, pages
from dtjob_serving.places import address_of
from dtjob_trainer.identity.credentials import Credentials
from dtjob_trainer.identity.proof import HelloDenied, Speaker, unproved
from dtjob_trainer.process.logs import Logger

HELLO_PATH = "/gang/hello"
LOG_PATH = "/gang/log"
#: Denials are logged at most once in so many seconds, with their number.
_LOG_SECONDS = 10.0


def shown(
    *,
    ready: Callable[[], bool],
    report: Callable[[], object],
    registry: CollectorRegistry,
    log: Logger,
) -> doors.Doors:
    """What everybody may see.

    `/healthz` says only that the supervisor's event loop turns: a slow step never fails it.
    `/readyz` is 200 once this worker can join or is part of an attempt.
    """

    def healthz() -> web.Response:
        return web.Response(text="ok\n")

    def readyz() -> web.Response:
        return web.Response(text="ok\n") if ready() else web.Response(status=503, text="starting\n")

    def get_report() -> web.Response:
        return web.Response(
            text=json.dumps(report(), separators=(",", ":")), content_type="application/json"
        )

    def metrics() -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def broken(path: str, error: Exception) -> None:
        log.error("a page could not be shown", path=path, detail=f"{error!r}")

    return pages.shown(
        {
            LIVENESS_PATH: healthz,
            READINESS_PATH: readyz,
            REPORT_PATH: get_report,
            "/metrics": metrics,
        },
        broken,
    )


class Hellos:
    """The coordinator's listener for its gang: nothing that comes is read before it is proved.

    Parameters
    ----------
    receive
        Answers a hello.
    keep
        Takes what ranks have printed, or raises HelloDenied.
    """

    def __init__(
        self,
        credentials: Credentials,
        receive: Callable[[Hello, Speaker], Awaitable[Directive]],
        keep: Callable[[LogPart], Awaitable[None]],
        log: Logger,
    ) -> None:
        self._credentials, self._log = credentials, log
        self._receive, self._keep = receive, keep
        self._denied, self._logged_at = 0, float("-inf")
        self.doors = doors.Doors(self._answer)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answered(request)
        except HelloDenied as error:
            self._log_denial(request, error)
            response = web.Response(status=error.status, text=str(error))
        except web.HTTPException:
            raise
        except Exception as error:
            # aiohttp's own log is silenced, since it also reports strangers.
            self._log.error("a hello could not be answered", detail=f"{error!r}")
            response = web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text="see its log\n")
        response.force_close()
        return response

    async def _answered(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST" or request.path not in (HELLO_PATH, LOG_PATH):
            raise HelloDenied(
                HTTPStatus.NOT_FOUND, f"only POST {HELLO_PATH} and {LOG_PATH} are answered here"
            )
        body = await doors.body(request)
        speaker = await self._speaker(request.headers.get("Authorization", ""), body)
        self.doors.proved(request)
        if request.path == LOG_PATH:
            await self._keep(_read(LogPart, body, speaker))
            return web.Response()
        directive = await self._receive(_read(Hello, body, speaker), speaker)
        return web.Response(text=directive.model_dump_json(), content_type="application/json")

    async def _speaker(self, shown: str, body: bytes) -> Speaker:
        if not shown or not shown.isascii():
            raise unproved("the hello has no proof")
        try:
            return await self._credentials.speaker(shown, body)
        except OSError as error:
            raise HelloDenied(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the coordinator can't read its own proof: {error.strerror}",
            ) from error

    def _log_denial(self, request: web.BaseRequest, denial: HelloDenied) -> None:
        self._denied += 1
        if (now := time.monotonic()) < self._logged_at + _LOG_SECONDS:
            return
        assert request.transport is not None
        self._log.warning(
            "hello refused",
            detail=str(denial),
            address=address_of(request.transport),
            count=self._denied,
        )
        self._denied, self._logged_at = 0, now


_Message = TypeVar("_Message", Hello, LogPart)


def _read(kind: type[_Message], body: bytes, speaker: Speaker) -> _Message:
    """What a worker says, of its own position alone."""
    try:
        message = kind.model_validate_json(body)
    except ValidationError as error:
        raise HelloDenied(
            HTTPStatus.BAD_REQUEST,
            f"not a {kind.__name__}, in {error.error_count()} places: are all workers of one "
            "image?",
        ) from None
    if speaker.position not in (None, message.position):
        raise HelloDenied(
            HTTPStatus.FORBIDDEN, f"worker {speaker.position} speaks as worker {message.position}"
        )
    return message
