"""Ports for servers that a test starts, its own until it ends: no two tests can get the same.

They lie below those that `dtjob run` chooses from.
"""

from __future__ import annotations

import random
import socket

from dtjob_cli.runs import ports

CHOICES = range(10_000, ports.CHOICES.start)


class Promised:
    """`count` neighbouring ports of the loopback.

    Each is bound by a socket that does not listen. Who else asks for the port here is refused, in
    this process and any other; a server that reuses addresses, as all of ours do, can listen.
    """

    def __init__(self, count: int) -> None:
        starts = range(CHOICES.start, CHOICES.stop - count + 1)
        for first in random.sample(starts, len(starts)):
            self._sockets = [socket.socket() for _ in range(count)]
            try:
                for port, holder in enumerate(self._sockets, first):
                    holder.bind(("127.0.0.1", port))
            except OSError:
                self.close()
                continue
            for holder in self._sockets:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.first = first
            return
        raise AssertionError(f"there are no {count} neighbouring free ports in {CHOICES}")

    def close(self) -> None:
        """Give the ports back."""
        for holder in self._sockets:
            holder.close()

    def __del__(self) -> None:
        self.close()
