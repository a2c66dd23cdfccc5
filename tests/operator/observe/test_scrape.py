"""Asking coordinators: real HTTP from a real socket, honest and otherwise."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dtjob_api.wire.well_known import REPORT_PATH
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.kube.store import Key
from dtjob_operator.observe import scrape
from dtjob_operator.read import coordinator_report
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.terms.kinds import JOB_LABEL, JOB_UID_LABEL, Json
from tests.support.builders import UID
from tests.support.worlds.world import CHILD

REPORT = {"jobUID": UID, "attempt": 1, "state": "Running", "step": 7, "samplesPerSecond": 10.0}
DEADLINE = 60.0
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def wait_for(look: Callable[[], T]) -> T:
    """Return the first result of `look` that is true."""
    async with asyncio.timeout(DEADLINE):
        while not (found := look()):
            await asyncio.sleep(0.01)
    return found


def pod(port_host: str = "127.0.0.1", **changes: object) -> Json:
    labels = {JOB_LABEL: "digits", JOB_UID_LABEL: UID}
    metadata = {"namespace": "ns", "name": f"{CHILD}-0", "uid": "pod-1", "labels": labels}
    return {
        "metadata": metadata | changes,
        "status": {"phase": "Running", "podIP": port_host},
    }


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Awaitable[web.AppRunner]]:
    """Answer for the report on a free port, which the scraper takes for the workers' port."""

    async def start(handler: Handler) -> web.AppRunner:
        app = web.Application()
        app.router.add_get(REPORT_PATH, handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setattr(scrape, "HTTP_PORT", runner.addresses[0][1])
        return runner

    return start


async def reports_of(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], handler: Handler, until: int
) -> tuple[list[Key], WorkerReport | None]:
    """Follow a pod until the job was told of often enough, or for half a second if never."""
    runner = await serve(handler)
    told: list[Key] = []
    scraper = scrape.Scraper(told.append, interval=0.05, count=lambda _result: None)
    scraper.pod_changed(pod(), exists=True)
    try:
        if until == 0:
            await asyncio.sleep(0.5)
        else:
            await wait_for(lambda: len(told) >= until)
        return told, scraper.report("ns", UID)
    finally:
        await scraper.close()
        await runner.cleanup()


def test_a_report_is_asked_for_again_and_again(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    stages = itertools.cycle(["training", "evaluating"])

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(REPORT | {"stage": next(stages)})

    told, report = asyncio.run(reports_of(serve, handler, until=3))
    assert set(told) == {("ns", "digits")}
    assert report == coordinator_report.read(REPORT | {"stage": "training"}, UID)


@pytest.mark.parametrize(
    ("changes", "is_news"),
    [
        ({}, False),
        ({"step": 8, "charged": 20, "heartbeatTime": "2026-03-01T14:00:07Z"}, False),
        ({"samplesPerSecond": 99.5, "evaluation": {"accuracy": 0.5}}, False),
        ({"attempt": 2}, True),
        ({"state": "Held", "reason": "StorageFull"}, True),
        ({"message": "the disk is full"}, True),
        ({"samplesPerSecond": None}, True),
    ],
    ids=str,
)
def test_figures_that_move_call_nobody(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], changes: dict[str, Any], is_news: bool
) -> None:
    """A job that runs is looked at every 15 s; what is new of it is looked at at once."""
    first = REPORT | {"samplesPerSecond": 100.0}
    asked: list[None] = []

    async def handler(_request: web.Request) -> web.Response:
        asked.append(None)
        return web.json_response(first | (changes if len(asked) > 1 else {}))

    async def scenario() -> None:
        runner = await serve(handler)
        told: list[Key] = []
        scraper = scrape.Scraper(told.append, interval=0.01, count=lambda _result: None)
        scraper.pod_changed(pod(), exists=True)
        await wait_for(lambda: len(asked) >= 6)
        assert len(told) == 1 + is_news
        assert scraper.report("ns", UID) == coordinator_report.read(first | changes, UID)
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_an_answer_is_read_once_and_with_mistrust(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(REPORT | {"stage": "epsilon 0.01 spent", "gpu": "many"})

    async def scenario() -> None:
        runner = await serve(handler)
        scraper = scrape.Scraper(lambda _key: None, interval=DEADLINE, count=lambda _result: None)
        scraper.pod_changed(pod(), exists=True)
        report = await wait_for(lambda: scraper.report("ns", UID))
        assert report is not None
        assert (report.step, report.stage, report.gpu) == (7, "", None)
        assert scraper.report("ns", UID) is report
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "changes", [{"jobUID": "another"}, {"jobUID": None}, {"attempt": None}], ids=str
)
def test_an_answer_that_is_no_report_of_the_job_takes_the_place_of_one(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], changes: dict[str, Any]
) -> None:
    """The address may have passed on to another job's pod."""
    answers = iter([REPORT])

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(next(answers, REPORT | changes))

    told, report = asyncio.run(reports_of(serve, handler, until=2))
    assert (set(told), report) == ({("ns", "digits")}, None)


@pytest.mark.parametrize(("rate", "pause"), [(10.0, 5.0), (0.0, 5.0), (None, 1.0)])
def test_a_job_is_asked_every_second_until_it_has_a_rate(rate: float | None, pause: float) -> None:
    """A rate of less than 0.05 is rounded to zero: it has one."""

    async def scenario() -> None:
        scraper = scrape.Scraper(lambda _key: None, interval=5.0, count=lambda _result: None)
        followed = scrape._Followed(UID, "uid", "10.0.0.7", answered_at=time.monotonic())
        answer = REPORT | {"samplesPerSecond": rate}
        assert scraper._accept(("ns", "digits"), followed, answer) == pause
        await scraper.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b"[1]",
        b"[" * 50_000,
        json.dumps({"padding": "x" * scrape.MAX_BYTES}).encode(),
    ],
    ids=["not JSON", "no object", "nested", "too large"],
)
def test_what_is_no_report_is_dropped(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], body: bytes
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    told, report = asyncio.run(reports_of(serve, handler, until=0))
    assert (told, report) == ([], None)


def test_a_report_without_end_is_not_read_to_its_end(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 2**26:
            await response.write(b"x" * 2**16)
            sent += 2**16
        return response

    told, report = asyncio.run(reports_of(serve, handler, until=0))
    assert (told, report) == ([], None)
    assert sent < 2**26


def test_a_redirect_is_not_followed(serve: Callable[[Handler], Awaitable[web.AppRunner]]) -> None:
    """Else a pod could make the operator ask anyone anything."""

    async def handler(request: web.Request) -> web.Response:
        if "again" in request.query:
            return web.json_response(REPORT)
        raise web.HTTPFound(f"{REPORT_PATH}?again=1")

    told, report = asyncio.run(reports_of(serve, handler, until=0))
    assert (told, report) == ([], None)


def test_the_report_of_a_pod_that_is_gone_is_forgotten(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(REPORT)

    async def scenario() -> None:
        runner = await serve(handler)
        scraper = scrape.Scraper(lambda _key: None, interval=0.05, count=lambda _result: None)
        for replaced in (pod(uid="pod-2"), None):
            scraper.pod_changed(pod(), exists=True)
            await wait_for(lambda: scraper.report("ns", UID))
            if replaced:
                scraper.pod_changed(replaced, exists=True)
                assert scraper.report("ns", UID) is None
            else:
                scraper.pod_changed(pod(), exists=False)
                assert scraper.report("ns", UID) is None
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": f"{CHILD}-w-0"},
        {"name": "miner-0"},
        {"name": f"{CHILD}-x-0"},
        {"labels": {JOB_UID_LABEL: UID}},
        {"labels": {JOB_LABEL: "digits", JOB_UID_LABEL: ""}},
        {"labels": {JOB_LABEL: "other", JOB_UID_LABEL: UID}},
    ],
    ids=["another worker", "another name", "a longer name", "no job", "no UID", "another job"],
)
def test_other_pods_than_the_coordinator_are_not_asked(changes: dict[str, Any]) -> None:
    async def scenario() -> None:
        scraper = scrape.Scraper(lambda _key: None, interval=0.05, count=lambda _result: None)
        scraper.pod_changed(pod(**changes), exists=True)
        assert not scraper._following
        await scraper.close()

    asyncio.run(scenario())


def test_a_pod_of_another_namespace_does_not_speak_for_the_job(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(REPORT)

    async def scenario() -> None:
        runner = await serve(handler)
        told: list[Key] = []
        scraper = scrape.Scraper(told.append, interval=0.05, count=lambda _result: None)
        scraper.pod_changed(pod(namespace="thief"), exists=True)
        await wait_for(lambda: told)
        assert set(told) == {("thief", "digits")}
        assert scraper.report("ns", UID) is None
        scraper.pod_changed(pod(), exists=True)
        assert len(scraper._following) == 2
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_a_pod_that_got_another_address_is_asked_there(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    """Its sandbox was started again: the same pod, and the old address is soon another's."""

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(REPORT | {"message": request.host})

    async def scenario() -> None:
        runner = await serve(handler)
        scraper = scrape.Scraper(lambda _key: None, interval=0.05, count=lambda _result: None)
        scraper.pod_changed(pod("127.0.0.2"), exists=True)  # nobody listens there
        scraper.pod_changed(pod(), exists=True)
        report = await wait_for(lambda: scraper.report("ns", UID))
        assert report is not None
        assert report.message is not None
        assert report.message.startswith("127.0.0.1:")
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_what_can_not_be_vouched_for_any_more_is_not_shown(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trouble is told once, in words that stay the same, and is over with the next report."""
    monkeypatch.setattr(scrape, "_LIFETIME_SECONDS", 0.3)
    monkeypatch.setattr(scrape, "_EAGER_SECONDS", 0.02)
    monkeypatch.setattr(scrape, "_LONGEST_PAUSE_SECONDS", 0.05)
    failing, asked = False, 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if failing:
            raise web.HTTPServiceUnavailable if asked % 2 else web.HTTPForbidden
        return web.json_response(REPORT)

    async def scenario() -> None:
        nonlocal failing
        runner = await serve(handler)
        metrics = Metrics()
        told: list[Key] = []
        scraper = scrape.Scraper(told.append, interval=0.02, count=metrics.count_report)
        scraper.pod_changed(pod(), exists=True)
        await wait_for(lambda: scraper.report("ns", UID))
        assert scraper.trouble("ns", UID) is None
        failing = True
        with capture_logs() as logs:
            trouble = await wait_for(lambda: scraper.trouble("ns", UID))
            assert trouble is not None
            assert scraper.report("ns", UID) is None
            before, already = len(told), asked
            await wait_for(lambda: asked >= already + 5)
            assert scraper.trouble("ns", UID) == trouble
            assert len(told) == before, "nothing new, so nobody is called"
        assert [log["log_level"] for log in logs] == ["warning"]
        port = scrape.HTTP_PORT  # type: ignore[attr-defined]  # the test's own
        assert trouble.startswith(f"127.0.0.1:{port} (HTTP ")
        exposed = metrics.exposition().decode()
        assert "dtjob_unreadable_reports_total 1.0" in exposed
        assert 'dtjob_report_requests_total{result="failed"} 0.0' not in exposed
        failing = False
        await wait_for(lambda: scraper.report("ns", UID))
        assert scraper.trouble("ns", UID) is None
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_a_missed_report_leaves_the_one_before(
    serve: Callable[[Handler], Awaitable[web.AppRunner]],
) -> None:
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(REPORT) if asked == 1 else web.Response(status=503)

    async def scenario() -> None:
        runner = await serve(handler)
        scraper = scrape.Scraper(lambda _key: None, interval=0.02, count=lambda _result: None)
        scraper.pod_changed(pod(), exists=True)
        await wait_for(lambda: asked >= 2)
        await asyncio.sleep(0.05)
        assert scraper.report("ns", UID) == coordinator_report.read(REPORT, UID)
        assert scraper.trouble("ns", UID) is None
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_who_does_not_answer_is_asked_ever_more_rarely() -> None:
    async def scenario() -> None:
        scraper = scrape.Scraper(lambda _key: None, interval=5.0, count=lambda _result: None)
        pauses = []
        for silent in (0, 4, 20, 60, 600):
            followed = scrape._Followed(
                UID, "uid", "10.0.0.7", answered_at=time.monotonic() - silent
            )
            pauses.append(
                scraper._note_failure(("ns", "digits"), followed, "10.0.0.7:8080", OSError())
            )
        assert pauses == pytest.approx([1, 2, 10, 30, 30], abs=0.5)
        await scraper.close()

    asyncio.run(scenario())


def test_those_who_do_not_answer_do_not_hold_up_the_others(
    serve: Callable[[Handler], Awaitable[web.AppRunner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them takes up a slot until its time is over."""
    monkeypatch.setattr(scrape, "_MAX_AT_ONCE", 2)
    monkeypatch.setattr(scrape, "_EAGER_SECONDS", 0.001)
    hanging = 0

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(REPORT)

    async def scenario() -> None:
        nonlocal hanging
        runner = await serve(handler)
        ends: list[scrape.ScrapeResult] = []
        scraper = scrape.Scraper(lambda _key: None, interval=0.02, count=ends.append)
        fetch = scraper._fetch

        async def fetch_or_hang(url: str) -> bytes:
            nonlocal hanging
            if "127.0.0.1" in url:
                return await fetch(url)
            hanging += 1
            if hanging > 4:  # at the second time
                await asyncio.Event().wait()
            raise TimeoutError

        scraper._fetch = fetch_or_hang  # type: ignore[method-assign]
        for number in range(4):
            scraper.pod_changed(pod("10.0.0.7", namespace=f"silent-{number}"), exists=True)
        await wait_for(lambda: hanging == 8)
        scraper.pod_changed(pod(), exists=True)
        await wait_for(lambda: ends.count("ok") >= 3)
        await scraper.close()
        await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), "no answer within 2 s"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "Connection refused"),
        (ValueError("not a JSON object"), "not a JSON object"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (ValueError("x" * 10**6), "x" * 200),
    ],
    ids=["silence", "refusal", "no report", "cut off", "long"],
)
def test_causes_are_told_in_words(error: Exception, cause: str) -> None:
    assert scrape._cause(error) == cause
