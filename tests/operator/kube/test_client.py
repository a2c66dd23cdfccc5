"""The client before a real socket: what discovery tells, and what a 404 means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from dtjob_operator.kube.api_errors import NoSuchKind, NotFound, Unavailable
from dtjob_operator.kube.client import KubeClient, _error
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.terms.kinds import LEASE, POD

API = "dtjob.dev/v1alpha1"
OURS = {"name": "dtjob.dev", "versions": [{"version": "v1alpha1"}]}
OTHER = {"name": "apps", "versions": [{"version": "v1"}]}
BOTH = ["distributedtrainingjobs", "distributedtrainingjobs/status", "privacyledgers"]


@asynccontextmanager
async def client_of(*routes: web.RouteDef) -> AsyncIterator[KubeClient]:
    """The client of an API server that has no more than these routes."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    client = KubeClient(configuration, Metrics().observe_request)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def served(groups: list[dict[str, Any]], plurals: list[str] | int) -> set[str]:
    """What the client finds at an API server that tells of so much."""

    async def tell_groups(_request: web.Request) -> web.Response:
        return web.json_response({"kind": "APIGroupList", "groups": groups})

    async def tell_resources(_request: web.Request) -> web.Response:
        if isinstance(plurals, int):
            return web.Response(status=plurals, text="404 page not found")
        return web.json_response({"resources": [{"name": name} for name in plurals]})

    async def scenario() -> set[str]:
        routes = web.get("/apis", tell_groups), web.get(f"/apis/{API}", tell_resources)
        async with client_of(*routes) as cluster:
            return await cluster.served(API)

    return asyncio.run(scenario())


def test_a_deletion_in_dry_run_says_so_in_its_body() -> None:
    """The API server reads the options of a deletion from one place: the body, if there is one."""
    asked: list[Any] = []

    async def deletion(request: web.Request) -> web.Response:
        asked.append((request.query_string, await request.json()))
        return web.json_response({"kind": "Status", "status": "Success"})

    async def scenario() -> None:
        async with client_of(web.delete("/api/v1/namespaces/ns/pods/x", deletion)) as cluster:
            await cluster.delete(POD, "ns", "x", "u", dry_run=True)
            await cluster.delete(POD, "ns", "x", "u")

    asyncio.run(scenario())
    real = {"propagationPolicy": "Background", "preconditions": {"uid": "u"}}
    assert asked == [("", real | {"dryRun": ["All"]}), ("", real)]


def test_a_list_comes_page_by_page_and_trimmed() -> None:
    """All pods of 8,000 as they come would be held at once: 883 MiB of them."""
    asked: list[dict[str, str]] = []

    async def pods(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        first = "continue" not in request.query
        names = ("pod-0", "pod-1") if first else ("pod-2",)
        metadata = {"resourceVersion": "70"} | ({"continue": "more"} if first else {})
        items = [
            {
                "metadata": {"name": name, "namespace": "ns", "managedFields": [{}]},
                "spec": {"containers": [{"env": [{"name": "A", "value": "B"}]}]},
                "status": {"phase": "Running"},
            }
            for name in names
        ]
        return web.json_response({"items": items, "metadata": metadata})

    async def scenario() -> None:
        async with client_of(web.get("/api/v1/pods", pods)) as cluster:
            sizes: list[int] = []
            async for page, version in cluster.pages(POD):
                assert len(asked) == len(sizes) + 1, "the next page is asked for when this is used"
                objects = list(page)
                sizes.append(len(objects))
                assert version == 70
                assert objects[0] == {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": objects[0]["metadata"]["name"], "namespace": "ns"},
                    "status": {"phase": "Running"},
                }
            assert sizes == [2, 1]
            assert asked == [{"limit": "500"}, {"limit": "500", "continue": "more"}]
            assert len((await cluster.list(POD))[0]) == 3

    asyncio.run(scenario())


def test_kinds_that_discovery_tells_of() -> None:
    assert served([OTHER, OURS], BOTH) == set(BOTH)
    assert served([OURS], BOTH[:1]) == set(BOTH[:1])


@pytest.mark.parametrize(
    ("groups", "plurals"),
    [
        ([OTHER], BOTH),
        ([], BOTH),
        ([OURS | {"versions": [{"version": "v1"}]}], BOTH),
        ([OURS], 404),
        ([OURS], []),
    ],
    ids=["no group", "no groups", "another version", "not found", "no resources"],
)
def test_an_api_server_whose_discovery_is_not_filled_yet(
    groups: list[dict[str, Any]], plurals: list[str] | int
) -> None:
    assert served(groups, plurals) == set()


def test_an_api_server_that_does_not_answer_is_told_from_one_that_knows_nothing() -> None:
    with pytest.raises(Unavailable):
        served([OURS], 503)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"message": "404 page not found\n"}, NoSuchKind),
        ({"details": {}, "reason": "NotFound", "message": "no such resource"}, NoSuchKind),
        ({"details": {"name": "digits"}, "reason": "NotFound", "message": "gone"}, NotFound),
    ],
    ids=["no Status", "no name", "an object"],
)
def test_a_kind_is_missing_where_a_404_names_no_object(
    status: dict[str, Any], error: type[NotFound]
) -> None:
    assert type(_error(404, status)) is error


def test_who_may_not_write_sends_nothing_but_its_lease() -> None:
    """Another operator may lead: what is read meanwhile harms nobody."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return web.json_response({"metadata": {"name": "x", "namespace": "ns"}})

    async def scenario() -> None:
        metadata = {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        async with client_of(web.route("*", "/{path:.*}", answer)) as cluster:
            cluster.may_write = lambda: False
            for write in (
                cluster.create(pod),
                cluster.apply(pod),
                cluster.replace(pod),
                cluster.replace_status(pod, {}),
                cluster.merge_patch(POD, "ns", "x", {}),
                cluster.delete(POD, "ns", "x", "u"),
            ):
                with pytest.raises(Unavailable, match="another operator may lead"):
                    await write
            await cluster.get(POD, "ns", "x")
            lease = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": metadata}
            await cluster.create(lease)
            await cluster.replace(lease)
            assert len(asked) == 3
            cluster.may_write = lambda: True
            await cluster.create(pod)
            assert asked[3:] == ["POST /api/v1/namespaces/ns/pods"]

    asyncio.run(scenario())
