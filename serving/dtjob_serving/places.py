"""Who is connected without proof, and who has to go where there are too many."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

#: Connections without proof that one address, and all together, may hold.
CONNECTIONS, ALL_CONNECTIONS = 64, 512

Guest = TypeVar("Guest")


class Places(Generic[Guest]):
    """Who is connected without proof, by address. Pure.

    Whoever comes is let in, and one goes where there are too many: the oldest of the address that
    has too many, or has most. So nobody who holds all places keeps a probe or a worker out.
    """

    def __init__(self, each: int = CONNECTIONS, together: int = ALL_CONNECTIONS) -> None:
        self._each, self._together = each, together
        self._guests: dict[Guest, str] = {}
        self._by_address: dict[str, dict[Guest, None]] = {}

    def take(self, address: str, guest: Guest) -> Guest | None:
        """Let a guest in; who has to go for it."""
        self._guests[guest] = address
        mine = self._by_address.setdefault(address, {})
        mine[guest] = None
        if len(mine) <= self._each:
            if len(self._guests) <= self._together:
                return None
            mine = max(self._by_address.values(), key=len)
        gone = next(iter(mine))
        self.leave(gone)
        return gone

    def leave(self, guest: Guest) -> None:
        """A guest is gone, or has proved who it is."""
        if (address := self._guests.pop(guest, None)) is None:
            return
        del self._by_address[address][guest]
        if not self._by_address[address]:
            del self._by_address[address]


def address_of(transport: asyncio.BaseTransport) -> str:
    """Whose connection it is; of one that broke off meanwhile nothing is known."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""
