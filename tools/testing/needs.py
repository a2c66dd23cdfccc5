"""What some tests need of a machine, by the marker that says so."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable

from localcluster import choose
from testing import memory_limits


def _missing_gpu() -> str | None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return "no NVIDIA driver on this machine (libnvidia-ml.so.1 does not load)"
    return None


def _missing_ipv6() -> str | None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return None
    except OSError:
        return "this machine has no IPv6 address of its own"


NEEDS: dict[str, Callable[[], str | None]] = {
    "gpu": _missing_gpu,
    "ipv6": _missing_ipv6,
    "memory_cgroup": memory_limits.obstacle,
    "cluster": choose.obstacle,
    "local_cluster": lambda: choose.obstacle(choose.Choice.LOCAL),
}
"""By marker: why this machine can't run what has it; None where it can."""
