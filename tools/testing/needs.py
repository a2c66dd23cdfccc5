"""What some tests need of a machine, by the marker that says so."""

from __future__ import annotations

import ctypes
import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from localcluster.base.errors import CannotRunHere
from localcluster.install import binaries
from localcluster.providers import choose
from testing import memory_limits


def _missing_oldest_kubernetes() -> str | None:
    """Not where its API server, or the etcd beside it, has to be built first: the tests do that."""
    try:
        for family in (binaries.OLDEST_KUBERNETES, binaries.ETCD):
            binaries.require_buildable(family)
    except CannotRunHere as error:
        return str(error)
    return None


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


def _missing_pid_namespace() -> str | None:
    try:
        made = subprocess.run(
            ["unshare", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"no program unshare: {error.strerror}"
    return None if made.returncode == 0 else f"no PID namespace can be made: {made.stderr.strip()}"


def _missing_core_files() -> str | None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "@", "/")):
        return f"core dumps don't go to the working folder (core_pattern is {pattern})"
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    return None if most == resource.RLIM_INFINITY else f"core dumps are cut at {most} bytes"


NEEDS: dict[str, Callable[[], str | None]] = {
    "gpu": _missing_gpu,
    "ipv6": _missing_ipv6,
    "oldest_kubernetes": _missing_oldest_kubernetes,
    "pid_namespace": _missing_pid_namespace,
    "core_files": _missing_core_files,
    "memory_cgroup": memory_limits.obstacle,
    "cluster": choose.obstacle,
    "local_cluster": lambda: choose.obstacle(choose.Choice.LOCAL),
}
"""By marker: why this machine can't run what has it; None where it can."""
