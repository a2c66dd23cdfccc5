"""What a session leaves of its times, and the table that is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing import budget, figures
from testing.figures import Figures
from testing.tiers import Tier
from tests.support.pytest_sessions import PLUGINS, alone_and_with_workers

TESTS = """
import pytest, time
def test_a(): time.sleep(0.02)
@pytest.mark.slow
@pytest.mark.xdist_group("g")
def test_b(): time.sleep(0.2)
"""


def left(pytester: pytest.Pytester, *arguments: str) -> list[Figures]:
    pytester.makepyfile(test_it=TESTS)
    pytester.runpytest_inprocess(*PLUGINS, *arguments)
    return figures.read(Path(pytester.path) / figures.FOLDER)


@alone_and_with_workers
def test_a_session_shares_its_seconds_out_among_its_tiers(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    (session,) = left(pytester, "--tier=check,processes", *workers)
    assert session.tests == {Tier.CHECK: 1, Tier.PROCESSES: 1}
    assert session.seconds[Tier.PROCESSES] > session.seconds[Tier.CHECK] > 0
    assert [name for _, _, name in session.slowest] == ["test_it.py::test_b", "test_it.py::test_a"]
    assert sum(session.seconds.values()) > sum(seconds for seconds, _, _ in session.slowest)


@pytest.mark.parametrize("arguments", [(), ("--tier=nightly",), ("--tier=pods",)])
def test_sessions_without_a_tier_of_the_table_leave_nothing(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    assert left(pytester, *arguments) == []


def test_the_table_adds_sessions_up_and_says_what_is_over() -> None:
    slow = [(300.0, Tier.PROCESSES, "test_z"), (1.0, Tier.CHECK, "test_y")]
    sessions = [
        Figures({Tier.CHECK: 2000}, {Tier.CHECK: 50.4}, slow[1:]),
        Figures({Tier.PROCESSES: 90, Tier.DOCS: 3}, {Tier.PROCESSES: 421, Tier.DOCS: 30}, slow[:1]),
        Figures({Tier.DOCS: 1}, {Tier.DOCS: 31.4}, []),
    ]
    assert budget.table(sessions) == [
        "tier        tests    used  budget",
        "check        2000    0:50    1:00",
        "models          0       -    2:00",
        "processes      90    7:01    7:00  over",
        "cluster         0       -    8:00",
        "pods            0       -    4:00",
        "docs            4    1:01    3:00",
        "all          2094    8:53   25:00",
        "",
        "slowest tests",
        " 300.0 s  processes  test_z",
        "   1.0 s  check      test_y",
    ]
