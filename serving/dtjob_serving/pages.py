"""Pages that everybody may see, each under its path; to see them changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from dtjob_serving.doors import Doors
from dtjob_serving.places import Places

Page = Callable[[], web.Response]


def shown(
    pages: Mapping[str, Page],
    broken: Callable[[str, Exception], None],
    places: Places[Any] | None = None,
) -> Doors:
    """A server that shows these pages, to `GET` and `HEAD`.

    Parameters
    ----------
    broken
        Called with the path of a page that could not be made, and why: `Doors` logs nothing.
    """

    def page(request: web.BaseRequest) -> web.Response:
        if request.path not in pages:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return web.Response(
                status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"}
            )
        try:
            return pages[request.path]()
        except Exception as error:
            broken(request.path, error)
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text="see its log\n")

    async def answer(request: web.BaseRequest) -> web.Response:
        response = page(request)
        # Who asks again comes again: an idle connection would be closed under the next question.
        response.force_close()
        return response

    return Doors(answer, places)
