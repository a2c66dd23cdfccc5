"""Pytest plugin: a session with `--tier` leaves its figures in pytest's cache.

Its seconds are shared out among the tiers by the time that their tests took, so that what all of
them wait for, such as the start of a cluster, counts too.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.tiers import Tier, chosen, tier_of

FOLDER = Path(".pytest_cache/d/dtjob-figures")
"""Of all sessions since `make check` began; in the root of the checkout."""
_KEPT = 10
_TIER = "tier"


@dataclass(frozen=True)
class Figures:
    """What one session of pytest took.

    Attributes
    ----------
    tests
        How many there were of each tier.
    seconds
        Of each tier, setup and teardown too.
    slowest
        Seconds, tier and name of its slowest tests.
    """

    tests: dict[Tier, int]
    seconds: dict[Tier, float]
    slowest: list[tuple[float, Tier, str]]


def read(folder: Path) -> list[Figures]:
    """The figures of all sessions in the order of their ends."""
    return [Figures(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


class Recorder:
    """Sums up what the tests of a session took."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.monotonic()
        self._tier: dict[str, Tier] = {}
        self._took: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("@")[0]  # xdist adds the group to the name
        self._took[name] = self._took.get(name, 0.0) + report.duration
        self._tier[name] = Tier(str(dict(report.user_properties)[_TIER]))

    def pytest_sessionfinish(self) -> None:
        if self._took:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{time.time_ns():020}.json"
            path.write_text(json.dumps(dataclasses.asdict(self.figures(self._wall()))))

    def figures(self, wall: float) -> Figures:
        """What was measured, for a session of so many seconds."""
        scale = wall / max(sum(self._took.values()), 1e-9)
        shares = dict.fromkeys(self._tier.values(), 0.0)
        for name, seconds in self._took.items():
            shares[self._tier[name]] += seconds * scale
        slowest = sorted(self._took, key=lambda name: -self._took[name])[:_KEPT]
        return Figures(
            tests=dict(Counter(self._tier.values())),
            seconds=shares,
            slowest=[(self._took[name], self._tier[name], name) for name in slowest],
        )

    def _wall(self) -> float:
        return time.monotonic() - self._began


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties.append((_TIER, tier_of(item).value))


def pytest_configure(config: pytest.Config) -> None:
    tiers = chosen(config)
    if tiers and Tier.NIGHTLY not in tiers and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config.rootpath / FOLDER), "dtjob-figures")
