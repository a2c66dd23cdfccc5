"""Ports on this machine: free ones to give to workers, and whether a wanted one is taken."""

from __future__ import annotations

import random
import socket
from collections.abc import Container

from dtjob_cli.errors import BadInput

# Below the range from which kernels number outgoing connections (32768 and up on Linux): what is
# free now is not taken by a passing connection before the worker has bound it.
CHOICES = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on the loopback's `port` now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free(count: int = 1, *, apart_from: Container[int] = ()) -> int:
    """Return the first of `count` neighbouring ports that are free now.

    Ports in `apart_from` are promised to somebody who has not bound them yet.
    """
    for first in random.sample(CHOICES, len(CHOICES)):  # scattered, so that runs don't collide
        if all(port not in apart_from and is_free(port) for port in range(first, first + count)):
            return first
    raise BadInput(
        "NoFreePort",
        f"there are no {count} neighbouring free ports from {CHOICES.start} to {CHOICES.stop}.",
        "End what holds them, or name others with --port.",
    )


def check(first: int, count: int) -> None:
    """Refuse `count` ports from `first` on unless all of them are free.

    Raises
    ------
    BadInput
        If one of them is taken or there are none so high; the message names it.
    """
    last = first + count - 1
    if last > 65_535:
        raise BadInput(
            "PortOutOfRange",
            f"--port {first}: {count} workers need ports up to {last}, above 65535.",
            f"Choose a port of at most {65_536 - count}.",
        )
    for port in range(first, last + 1):
        if not is_free(port):
            whose = "" if port == first else f" (worker {port - first})"
            raise BadInput(
                "PortInUse",
                f"port {port}{whose} is in use by another process.",
                "Choose another --port, or leave it out: free ports are found by themselves.",
            )
