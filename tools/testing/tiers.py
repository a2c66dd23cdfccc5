"""Pytest plugin: every test belongs to one tier; `--tier=NAME` runs those of some of them.

What a machine can't run is named once with its reason; nothing else may be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from operator import methodcaller

import pytest

from testing.needs import NEEDS

_IN_A_CLUSTER = {"cluster", "trainer_image", "standin_image"}
"""The fixtures that are something in a cluster."""


class Tier(StrEnum):
    """In the order in which they run: what costs least comes first."""

    CHECK = "check"
    MODELS = "models"
    PROCESSES = "processes"
    CLUSTER = "cluster"
    PODS = "pods"
    DOCS = "docs"
    NIGHTLY = "nightly"


def tier_of(item: pytest.Item) -> Tier:
    """The tier of a test by its markers."""
    marks = {mark.name for mark in item.iter_markers()}
    if "nightly" in marks:
        return Tier.NIGHTLY
    if "pages" in marks:
        return Tier.DOCS
    if "pods" in marks or "trainer_image" in getattr(item, "fixturenames", ()):
        return Tier.PODS
    if "cluster" in marks:
        return Tier.CLUSTER
    if marks & {"slow", "processes", "gpu"}:
        return Tier.PROCESSES
    return Tier.MODELS if "models" in marks else Tier.CHECK


def is_nightly(item: pytest.Item) -> bool:
    """Whether it runs at night: marked so, or a property test, for the sake of its examples."""
    tier = tier_of(item)
    cheap = tier in (Tier.CHECK, Tier.MODELS, Tier.PROCESSES)
    is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return tier is Tier.NIGHTLY or (cheap and is_property)


def _unmarked(item: pytest.Item) -> bool:
    """Whether it needs a cluster and doesn't say so: no target would run it."""
    needs = item.get_closest_marker("pods") or _IN_A_CLUSTER & set(
        getattr(item, "fixturenames", ())
    )
    return bool(needs) and item.get_closest_marker("cluster") is None


def _belongs(item: pytest.Item, tiers: list[Tier]) -> bool:
    ours = tier_of(item) in tiers or (Tier.NIGHTLY in tiers and is_nightly(item))
    return ours or _unmarked(item)  # which fails, wherever it turns up


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier",
        metavar="NAME[,NAME]",
        help=f"run the tests of these tiers only: {', '.join(Tier)}",
    )


def chosen(config: pytest.Config) -> list[Tier] | None:
    """The tiers that were asked for; None without `--tier`."""
    given: str | None = config.getoption("--tier")
    if given is None:
        return None
    try:
        return [Tier(name) for name in given.split(",")]
    except ValueError as error:
        raise pytest.UsageError(f"--tier {given}: {error}; there are {', '.join(Tier)}") from None


class Tiers:
    """Selects the tests of a session, and reports what could not be run."""

    def __init__(self, tiers: list[Tier] | None) -> None:
        self._tiers = tiers
        self._not_run: dict[str, tuple[int, str]] = {}
        self._skipped: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Iterator[None]:
        if (tiers := self._tiers) is not None:
            _leave_out(config, items, lambda item: not _belongs(item, tiers))
        order = list(Tier)
        items.sort(key=lambda item: order.index(tier_of(item)))
        result = yield
        # Last, so that nobody looks for a cluster who has deselected its tests.
        for need, missing in NEEDS.items():
            members = [item for item in items if item.get_closest_marker(need)]
            if members and (reason := missing()):
                self._not_run[need] = (len(members), reason)
                _leave_out(config, items, methodcaller("get_closest_marker", need))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        if self._skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._not_run and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["not_run"] = self._not_run
        return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Each of xdist's workers has collected the same and left out the same."""
        self._not_run |= getattr(node, "workeroutput", {}).get("not_run", {})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for need, (count, reason) in self._not_run.items():
            terminalreporter.write_line(f"tier {need}: {count} tests not run: {reason}")
        for nodeid in self._skipped:
            terminalreporter.write_line(
                f"FAILED {nodeid}: skipped; a test that can't run belongs to a tier"
            )


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], object]
) -> None:
    left_out = [item for item in items if unwanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not unwanted(item)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if _unmarked(item):
        pytest.fail("it needs a cluster: without the marker cluster no target runs it", False)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(chosen(config)), "dtjob-tiers")
