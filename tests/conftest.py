"""What all tests share; which run where is in tools/testing."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from testing.examples import AT_NIGHT

pytest_plugins = [
    "pytester",
    "testing.tiers",
    "testing.figures",
    "testing.shards",
    "testing.together",
    "testing.clusters",
    "testing.alone",
    "tests.support.commands.kubectl_answers",
    "tests.support.gangs.fixtures",
]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of torch that wait for one another would only burn them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing of what it shows: a machine may stand still at any time.
hypothesis.settings.register_profile(
    "dtjob", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "nightly", hypothesis.settings.get_profile("dtjob"), max_examples=100 * AT_NIGHT
)


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores Ctrl-C, and so would every program that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    at_night = "nightly" in (config.getoption("--tier") or "")
    hypothesis.settings.load_profile("nightly" if at_night else "dtjob")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting imports torch and makes thousands of objects that stay: none of it is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing cached, no engine and no Go."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("DTJOB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DTJOB_TOOLS_CACHE", str(tmp_path / "tools"))
    monkeypatch.delenv("DTJOB_KUBECONFIG", raising=False)
    monkeypatch.delenv("DTJOB_REGISTRY", raising=False)
    return tmp_path
