"""Where the API server is, as a NetworkPolicy has to say it: by address.

It tells so itself, by EndpointSlice and Service `kubernetes` of namespace `default`. A platform
team may have taken the right to read them away: nothing waits for them for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import ip_network

from dtjob_operator import kinds
from dtjob_operator.cluster import Cluster
from dtjob_operator.kinds import Json, Selection
from dtjob_operator.metrics import Metrics
from dtjob_operator.observed import Place
from dtjob_operator.reflector import Reflector
from dtjob_operator.store import Store

_NAMESPACE, _NAME = "default", "kubernetes"
_KINDS = (kinds.ENDPOINT_SLICE, kinds.SERVICE)


class ApiServerWatch:
    """Follows what the API server tells of its own addresses.

    Parameters
    ----------
    changed
        Called whenever they may have changed.
    """

    def __init__(self, cluster: Cluster, changed: Callable[[], None], metrics: Metrics) -> None:
        self._stores = {kind: Store() for kind in _KINDS}
        self._last: tuple[Place, ...] = ()
        self._reflectors = [
            Reflector(
                cluster,
                Selection(kind, _NAMESPACE, field_selector=f"metadata.name={_NAME}"),
                store,
                lambda _: changed(),
                metrics,
            )
            for kind, store in self._stores.items()
        ]

    def places(self) -> tuple[Place, ...]:
        """The API server's own addresses and that of its Service; empty while one is unknown.

        One that shuts down takes itself out of the list, the only one for a moment too: what was
        known last is true again soon.
        """
        endpoint_slice, service = (self._stores[kind].get(_NAMESPACE, _NAME) for kind in _KINDS)
        self._last = places(endpoint_slice, service) or self._last
        return self._last

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def tried(self) -> None:
        """Wait until all that can be known at first is known."""
        for reflector in self._reflectors:
            await reflector.tried.wait()


def places(endpoint_slice: Json | None, service: Json | None) -> tuple[Place, ...]:
    """Where the API server listens; empty where either part is unknown.

    Some networks apply policies to the Service's address, most to the endpoint's behind it: with
    one of them alone, workers might be cut off.
    """
    if endpoint_slice is None or service is None or endpoint_slice.get("addressType") == "FQDN":
        return ()
    endpoints = Place(
        networks=_hosts(
            address
            for endpoint in endpoint_slice.get("endpoints") or ()
            for address in endpoint["addresses"]
        ),
        ports=_ports(endpoint_slice),
    )
    spec = service["spec"]
    front = Place(networks=_hosts(spec.get("clusterIPs") or ()), ports=_ports(spec))
    if not all((*endpoints, *front)):
        return ()
    return endpoints, front


def _hosts(addresses: Iterable[str]) -> tuple[str, ...]:
    """Networks of one address each, in an order of their own: that of a list means nothing."""
    networks = {ip_network(address) for address in addresses}
    return tuple(str(each) for each in sorted(networks, key=lambda n: (n.version, n)))


def _ports(listed: Json) -> tuple[int, ...]:
    ports = listed.get("ports") or ()
    return tuple(sorted({p["port"] for p in ports if p.get("protocol", "TCP") == "TCP"}))
