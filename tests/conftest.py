"""Tiers: what a machine can't run is named once with its reason; nothing else may be skipped."""

from __future__ import annotations

import ctypes
import signal
import socket
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from localcluster import choose

# How long an example takes says nothing of what it shows: a machine may stand still at any time.
hypothesis.settings.register_profile(
    "dtjob", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("dtjob")


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


TIERS: dict[str, Callable[[], str | None]] = {
    "gpu": _missing_gpu,
    "ipv6": _missing_ipv6,
    "cluster": choose.obstacle,
    "local_cluster": lambda: choose.obstacle(choose.Choice.LOCAL),
}
_not_run: dict[str, tuple[int, str]] = {}
_skipped: list[str] = []


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every program that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for tier, missing in TIERS.items():
        members = [item for item in items if item.get_closest_marker(tier)]
        if members and (reason := missing()):
            _not_run[tier] = (len(members), reason)
            config.hook.pytest_deselected(items=members)
            items[:] = [item for item in items if item not in members]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(item.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for tier, (count, reason) in _not_run.items():
        terminalreporter.write_line(f"tier {tier}: {count} tests not run: {reason}")
    for nodeid in _skipped:
        terminalreporter.write_line(
            f"FAILED {nodeid}: skipped; a test that can't run belongs to a tier"
        )
