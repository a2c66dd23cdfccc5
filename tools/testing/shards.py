"""Pytest plugin: one shard of the nightly tests, without those that have passed already.

The nightly tier is what is marked `nightly`, and every property test of the cheaper tiers once
more with many more examples. `@pytest.mark.nightly(minutes=5)` says how long a test takes at
most, where that is more than a minute: shards are balanced by it, the same on every machine. With
`together=True` it is what all tests of the module take, most of it for what they share: they are
in one shard.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testing.tiers import Tier, chosen, is_nightly, tier_of

DEFAULT_MINUTES = 1.0
PROPERTY_MINUTES = 2.0
_PROPERTY_TIMEOUT = 1800


class Shard:
    """`2/3`: the second of three.

    Raises
    ------
    ValueError
        The text names no shard; the message says what does.
    """

    def __init__(self, text: str) -> None:
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and int(number) >= 1):
            raise ValueError(f"{text!r} is no shard: write 2/3 for the second of three")
        self.number, self.count = int(number), int(count)
        if self.number > self.count:
            raise ValueError(f"{text!r}: there are shards 1 to {count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def members(minutes: Mapping[str, float], shard: Shard) -> set[str]:
    """The tests of a shard: the longest first, each to the shard that has least to do."""
    loads = [0.0] * shard.count
    found = set()
    for name in sorted(minutes, key=lambda name: (-minutes[name], name)):
        least = loads.index(min(loads))
        loads[least] += minutes[name]
        if least == shard.number - 1:
            found.add(name)
    return found


class Progress:
    """What has been tried of the nightly tests at one commit: a file that only grows.

    A line is `{"test", "passed", "seconds"}`, or `{"shard", "tests"}` with minutes by test.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, **line: Any) -> None:
        """Write a line down."""
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def results(self) -> dict[str, tuple[bool, float]]:
        """By test: whether it passed the last time, and the seconds of all its tries."""
        found: dict[str, tuple[bool, float]] = {}
        for line in self._lines():
            if (name := line.get("test")) is not None:
                before = found.get(name, (False, 0.0))[1]
                found[name] = (line["passed"], before + line["seconds"])
        return found

    def tests(self, shard: Shard) -> dict[str, float]:
        """Minutes by test of a shard, as it was collected last."""
        return next(
            (line["tests"] for line in reversed(self._lines()) if line.get("shard") == str(shard)),
            {},
        )

    def _lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


class Selection:
    """Leaves only what a shard has still to pass."""

    def __init__(self, shard: Shard, progress: Progress) -> None:
        self._shard, self._progress = shard, progress

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        units: defaultdict[str, list[str]] = defaultdict(list)
        minutes: defaultdict[str, float] = defaultdict(float)
        for item in filter(is_nightly, items):
            unit = unit_of(item)
            units[unit].append(item.nodeid)
            minutes[unit] = max(minutes[unit], minutes_of(item))
        mine_of = {
            name: round(minutes[unit] / len(units[unit]), 3)
            for unit in members(minutes, self._shard)
            for name in units[unit]
        }
        if getattr(config, "workerinput", {}).get("workerid", "gw0") == "gw0":
            self._progress.add(shard=str(self._shard), tests=dict(sorted(mine_of.items())))
        mine = set(mine_of)
        results = self._progress.results()
        mine -= {name for name, (passed, _) in results.items() if passed}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in mine])
        items[:] = [item for item in items if item.nodeid in mine]
        for item in items:
            if tier_of(item) is not Tier.NIGHTLY:
                item.add_marker(pytest.mark.timeout(_PROPERTY_TIMEOUT))


class Record:
    """Writes down what passes and what does not, as soon as it is known."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._failed: set[str] = set()
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("@")[0]
        self._seconds[name] = self._seconds.get(name, 0.0) + report.duration
        if report.failed:
            self._failed.add(name)
        if report.when == "teardown":
            passed, seconds = name not in self._failed, round(self._seconds[name], 2)
            self._progress.add(test=name, passed=passed, seconds=seconds)


def unit_of(item: pytest.Item) -> str:
    """What is never divided between shards: a test, or a module whose tests share what is dear."""
    mark = item.get_closest_marker("nightly")
    together = mark is not None and mark.kwargs.get("together", False)
    return item.nodeid.partition("::")[0] if together else item.nodeid


def minutes_of(item: pytest.Item) -> float:
    """How long a test takes at most, or all that are together, by its marker."""
    mark = item.get_closest_marker("nightly")
    if mark is None:
        return PROPERTY_MINUTES
    return float(mark.kwargs.get("minutes", DEFAULT_MINUTES))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", metavar="I/N", default="1/1", help="with --tier nightly: a part")
    parser.addoption("--progress", metavar="FILE", help="with --tier nightly: what has passed")


def pytest_configure(config: pytest.Config) -> None:
    if Tier.NIGHTLY not in (chosen(config) or []) or config.getoption("--progress") is None:
        return
    try:
        shard = Shard(config.getoption("--shard"))
    except ValueError as error:
        raise pytest.UsageError(f"--shard: {error}") from None
    progress = Progress(Path(config.getoption("--progress")))
    config.pluginmanager.register(Selection(shard, progress), "dtjob-shard")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(progress), "dtjob-nightly-record")
