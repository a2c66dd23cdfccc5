"""aiohttp's side of a connection, kept from what it would parse too early."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

from dtjob_serving.framing import Framing, Unwanted


class Connection(web.RequestHandler):
    """aiohttp's side of a connection, which gets to see no more than `Framing` passes on."""

    def __init__(self, manager: web.Server, body_bytes: int, **options: Any) -> None:
        super().__init__(manager, **options)
        self._framing = Framing(body_bytes)

    def data_received(self, data: bytes) -> None:
        """Bytes have come, or none: then aiohttp goes on with what it was given before."""
        try:
            passed = self._framing.passed(data)
        except Unwanted as unwanted:
            if unwanted.status is not None and self.transport is not None:
                self.transport.write(_answer(unwanted.status))
            self.force_close()
            return
        if passed or not data:
            super().data_received(passed)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer."""
        self._framing.answered()
        return await super().finish_response(request, resp, start_time)


def _answer(status: HTTPStatus) -> bytes:
    status_line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
    return f"{status_line}Connection: close\r\nContent-Length: 0\r\n\r\n".encode()
