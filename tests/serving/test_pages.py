"""What everybody may see, and that nothing else comes of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
import pytest
from aiohttp import web

from dtjob_serving import doors, pages


def asked(method: str, path: str, shown: Mapping[str, pages.Page]) -> tuple[int, str, list[str]]:
    """Status, text and what was told of broken pages; the connection ends with each answer."""
    told: list[str] = []

    async def scene() -> tuple[int, str]:
        listener = doors.listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
        page = pages.shown(shown, lambda path, error: told.append(f"{path}: {error}"))
        runner = await doors.serve(page, listener)
        async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
            said = answer.status, await answer.text()
            assert answer.headers["Connection"] == "close"
        await runner.cleanup()
        return said

    return (*asyncio.run(scene()), told)


def good() -> web.Response:
    return web.Response(text="ok\n")


def broken() -> web.Response:
    raise ValueError("no such figure")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/good", 200, "ok\n"),
        ("GET", "/good?more=1", 200, "ok\n"),
        ("HEAD", "/good", 200, ""),
        ("POST", "/good", 405, ""),
        ("GET", "/good/", 404, ""),
        ("POST", "/other", 404, ""),
    ],
)
def test_a_page_has_one_path_and_is_only_read(
    method: str, path: str, status: int, text: str
) -> None:
    assert asked(method, path, {"/good": good}) == (status, text, [])


def test_a_page_that_can_not_be_made_is_told_to_who_serves_it() -> None:
    told = asked("GET", "/broken", {"/good": good, "/broken": broken})
    assert told == (500, "see its log\n", ["/broken: no such figure"])
