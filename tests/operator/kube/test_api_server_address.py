"""Where the API server is: read from what it says, followed as it moves, missed without harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from dtjob_operator.kube.api_errors import ApiError
from dtjob_operator.kube.api_server_address import ApiServerWatch, endpoints
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json, Kind
from dtjob_operator.terms.observed import Endpoint, has_addresses

FRONT = Endpoint(("10.96.0.1/32", "fd00:10::1/128"), (443,))


def endpoint_slice(*addresses: str, port: int = 6443, **fields: Any) -> Json:
    return {
        "metadata": {"namespace": "default", "name": "kubernetes", "resourceVersion": "1"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    } | fields


def service(*addresses: str) -> Json:
    return {
        "metadata": {"namespace": "default", "name": "kubernetes", "resourceVersion": "2"},
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": list(addresses),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    }


SERVICE = service("10.96.0.1", "fd00:10::1")


def test_endpoints_and_service_are_both_opened() -> None:
    found = endpoints(endpoint_slice("192.0.2.9", "192.0.2.10"), SERVICE)
    assert found == (Endpoint(("192.0.2.9/32", "192.0.2.10/32"), (6443,)), FRONT)


def test_the_order_of_endpoints_is_no_news() -> None:
    one, other = (endpoint_slice(*order) for order in (("192.0.2.2", "192.0.2.10"),) * 2)
    other["endpoints"].reverse()
    assert endpoints(one, SERVICE) == endpoints(other, SERVICE)


@pytest.mark.parametrize(
    ("of_endpoints", "of_service", "ports"),
    [
        (None, None, None),
        (None, SERVICE, (443,)),
        (endpoint_slice("192.0.2.9", port=16443), None, (16443,)),
        (endpoint_slice(), SERVICE, (443, 6443)),
        (endpoint_slice("192.0.2.9", endpoints=None), SERVICE, (443, 6443)),
        (endpoint_slice("192.0.2.9", ports=None), SERVICE, (443,)),
        (endpoint_slice("192.0.2.9", ports=[{"name": "any"}]), SERVICE, (443,)),
        (endpoint_slice("192.0.2.9", ports=[{"port": None}]), SERVICE, (443,)),
        (endpoint_slice("192.0.2.9", "010.0.0.1"), SERVICE, (443, 6443)),
        (endpoint_slice("192.0.2.9"), service("None"), (443, 6443)),
        (endpoint_slice("master.example.org", addressType="FQDN"), SERVICE, (443, 6443)),
        (endpoint_slice("192.0.2.9"), SERVICE | {"spec": {"type": "ExternalName"}}, (6443,)),
    ],
)
def test_of_half_of_it_only_the_ports_are_known(
    of_endpoints: Json | None, of_service: Json | None, ports: tuple[int, ...] | None
) -> None:
    """With an address too few workers might be cut off, and nothing would say why."""
    found = endpoints(of_endpoints, of_service)
    assert found == (() if ports is None else (Endpoint((), ports),))
    assert not has_addresses(found)


class Told:
    """An API server whose two objects can be changed, or withheld."""

    def __init__(self) -> None:
        self.objects = {kinds.ENDPOINT_SLICE: endpoint_slice("192.0.2.9"), kinds.SERVICE: SERVICE}
        self.asked: list[tuple[str | None, str | None]] = []
        self.forbidden: Kind | None = None
        self.news: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()

    async def pages(
        self, kind: Kind, *, namespace: str | None, field_selector: str | None, **_: object
    ) -> AsyncIterator[tuple[list[Json], int]]:
        self.asked.append((namespace, field_selector))
        if kind == self.forbidden:
            raise ApiError.of(403, "Forbidden", "endpointslices is forbidden")
        yield [self.objects[kind]], 2

    @asynccontextmanager
    async def watch(
        self, kind: Kind, _version: int, *, namespace: str | None, **_: object
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        assert namespace == "default"

        async def events() -> AsyncIterator[tuple[str, Json]]:
            while kind == kinds.ENDPOINT_SLICE:
                yield await self.news.get()
            await asyncio.Event().wait()

        yield events()


def following(scenario: Callable[[ApiServerWatch, Told, asyncio.Event], Awaitable[None]]) -> None:
    async def played() -> None:
        told: Any = Told()
        changed = asyncio.Event()
        watch = ApiServerWatch(told, changed.set, lambda _kind: None)
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(60):
            await scenario(watch, told, changed)
        running.cancel()

    asyncio.run(played())


def test_it_is_followed_as_it_moves() -> None:
    async def scenario(watch: ApiServerWatch, told: Told, changed: asyncio.Event) -> None:
        await watch.tried()
        assert watch.endpoints() == (Endpoint(("192.0.2.9/32",), (6443,)), FRONT)
        assert set(told.asked) == {("default", "metadata.name=kubernetes")}
        changed.clear()
        moved = endpoint_slice("192.0.2.77")
        moved["metadata"] = moved["metadata"] | {"resourceVersion": "3"}
        await told.news.put(("MODIFIED", moved))
        await changed.wait()
        assert watch.endpoints()[0] == Endpoint(("192.0.2.77/32",), (6443,))

        changed.clear()
        gone = endpoint_slice()
        gone["metadata"] = gone["metadata"] | {"resourceVersion": "4"}
        await told.news.put(("MODIFIED", gone))
        await changed.wait()
        assert watch.endpoints()[0] == Endpoint(("192.0.2.77/32",), (6443,)), "it shuts down"

    following(scenario)


def test_without_the_right_to_read_it_nothing_waits() -> None:
    async def scenario(watch: ApiServerWatch, told: Told, _changed: asyncio.Event) -> None:
        told.forbidden = kinds.ENDPOINT_SLICE
        with capture_logs() as logs:
            await watch.tried()
            assert watch.endpoints() == (Endpoint((), (443,)),)
            while told.asked.count(("default", "metadata.name=kubernetes")) < 4:
                await asyncio.sleep(0.01)
        warnings = [log for log in logs if log["log_level"] == "warning"]
        assert len(warnings) == 1, "one trouble is told once"
        told.forbidden = None
        while not has_addresses(watch.endpoints()):
            await asyncio.sleep(0.01)

    following(scenario)
