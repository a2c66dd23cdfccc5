"""Where the API server is, as a NetworkPolicy has to say it: by address.

EndpointSlice and Service `kubernetes` of namespace `default` say so. A platform team may have taken
the right to read them away: nothing waits for them for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import ip_network

from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.reflector import Reflector
from dtjob_operator.kube.store import Store
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json, Kind, Selection
from dtjob_operator.terms.observed import Endpoint, has_addresses

ADDRESSES_NAMESPACE, _NAME = "default", "kubernetes"
_KINDS = (kinds.ENDPOINT_SLICE, kinds.SERVICE)


class ApiServerWatch:
    """Follows the API server's own addresses.

    Parameters
    ----------
    changed
        Called whenever they may have changed.
    count_odd
        As in `Reflector`.
    """

    def __init__(
        self, client: KubeClient, changed: Callable[[], None], count_odd: Callable[[Kind], None]
    ) -> None:
        self._stores = {kind: Store() for kind in _KINDS}
        self._last: tuple[Endpoint, ...] = ()
        self._reflectors = [
            Reflector(
                client,
                Selection(kind, ADDRESSES_NAMESPACE, field_selector=f"metadata.name={_NAME}"),
                store,
                lambda _: changed(),
                count_odd,
            )
            for kind, store in self._stores.items()
        ]

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The API server's own addresses and that of its Service, or what is known of them.

        One that shuts down takes itself out of the list, the only one for a moment too: what was
        known last is true again soon.
        """
        endpoint_slice, service = (
            self._stores[kind].get(ADDRESSES_NAMESPACE, _NAME) for kind in _KINDS
        )
        found = endpoints(endpoint_slice, service)
        if has_addresses(found) or (found and not has_addresses(self._last)):
            self._last = found
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


def endpoints(endpoint_slice: Json | None, service: Json | None) -> tuple[Endpoint, ...]:
    """Where the API server listens; its ports alone where either address is unknown.

    Some networks apply policies to the Service's address, most to the endpoint's behind it: with
    one of them alone, workers might be cut off. A port is of use with whatever address it is.
    """
    slice_of, spec = endpoint_slice or {}, (service or {}).get("spec") or {}
    named = slice_of.get("addressType") == "FQDN"
    own = Endpoint(
        networks=_hosts(
            address
            for endpoint in (() if named else slice_of.get("endpoints") or ())
            for address in endpoint["addresses"]
        ),
        ports=_ports(slice_of),
    )
    in_front = Endpoint(networks=_hosts(spec.get("clusterIPs") or ()), ports=_ports(spec))
    if all((*own, *in_front)):
        return own, in_front
    ports = tuple(sorted({*own.ports, *in_front.ports}))
    return (Endpoint((), ports),) if ports else ()


def _hosts(addresses: Iterable[str]) -> tuple[str, ...]:
    """Networks of one address each, in an order of their own: that of a list means nothing.

    None where one of them is no address, as of a headless Service: with too few some are cut off.
    """
    try:
        networks = {ip_network(address) for address in addresses}
    except ValueError:
        return ()
    return tuple(str(each) for each in sorted(networks, key=lambda n: (n.version, n)))


def _ports(listed: Json) -> tuple[int, ...]:
    ports = listed.get("ports") or ()
    # A port without a number is any; nothing can be opened for it.
    tcp = (port.get("port") for port in ports if port.get("protocol", "TCP") == "TCP")
    return tuple(sorted({number for number in tcp if number}))
