"""Tests of a cluster that run at once have a cluster each, which is removed whatever happens.

Clusters are played: a file for each that was removed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.providers import choose
from testing import clusters
from tests.support.pytest_sessions import PLUGINS

CONFTEST = """
import pathlib
import pytest
from localcluster.providers import choose
from testing import clusters, tiers
tiers.NEEDS = {{}}
choose.obstacle = lambda _choice: {reason!r}
class Played:
    def __init__(self, name, _progress):
        self.name = name
    def down(self):
        (pathlib.Path({folder!r}) / self.name).touch()
clusters.LocalProvider = Played
@pytest.fixture
def own(request):
    return clusters.of_worker(request.config)
"""
# Both wait for the other, so that there must be two workers.
TESTS = """
import os, pathlib, pytest, time
def meet(me, other):
    (pathlib.Path({folder!r}) / f"met-{{me}}").touch()
    while not (pathlib.Path({folder!r}) / f"met-{{other}}").exists():
        time.sleep(0.01)
@pytest.mark.cluster
def test_one(own):
    meet(1, 2)
@pytest.mark.cluster
def test_other(own):
    meet(2, 1)
    {end}
"""
OWN = ("-p", "testing.together", "-p", "testing.clusters")
AUTO = ("--tier=cluster", "-n", "auto", "--dist", "loadgroup")


def run(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    text: str,
    reason: str | None = None,
) -> tuple[pytest.RunResult, set[str]]:
    """The result, and the clusters that were removed."""
    for module, name in ((choose, "obstacle"), (clusters, "LocalProvider")):
        monkeypatch.setattr(module, name, getattr(module, name))  # the conftest's end with the test
    folder = str(pytester.path)
    pytester.makeconftest(CONFTEST.format(folder=folder, reason=reason))
    pytester.makepyfile(test_it=text)
    result = pytester.runpytest_inprocess(*PLUGINS, *OWN, *arguments)
    return result, {found.name for found in Path(folder).glob("dtjob-*")}


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the conftest changes ends with the test."""
    from testing import tiers

    monkeypatch.setattr(tiers, "NEEDS", {})


@pytest.mark.slow
@pytest.mark.parametrize("end", ["pass", "os._exit(1)", "raise KeyboardInterrupt"])
def test_each_worker_has_its_own_cluster_and_it_is_removed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    text = TESTS.format(folder=str(pytester.path), end=end)
    result, removed = run(pytester, monkeypatch, *AUTO, text=text)
    assert {"dtjob-gw0", "dtjob-gw1"} <= removed, "\n".join(result.outlines)
    assert (result.ret == pytest.ExitCode.OK) == (end == "pass")


def test_on_a_cluster_of_somebody_tests_run_one_after_the_other(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import pytest\n@pytest.mark.cluster\ndef test_it(own): assert own is None\n"
    result, removed = run(pytester, monkeypatch, *AUTO, text=text, reason="it is theirs")
    result.assert_outcomes(passed=1)
    assert result.outlines.count("clusters: one test at a time: it is theirs") == 1
    assert removed == set()


@pytest.mark.slow
def test_workers_never_share_a_cluster_of_somebody(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import pytest\n@pytest.mark.cluster\ndef test_it(own): pass\n"
    result, _ = run(pytester, monkeypatch, "-n", "2", text=text, reason="it is theirs")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can't share a cluster: it is theirs. Leave out -n.*"])


def test_other_tests_run_with_as_many_workers_as_there_are_cores(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tiers, number in (("check", None), ("processes,docs", None), ("check,pods", 2)):
        monkeypatch.setattr(pytestconfig.option, "tier", tiers)
        monkeypatch.setattr(choose, "obstacle", lambda _choice: None)
        assert clusters.pytest_xdist_auto_num_workers(pytestconfig) == number


GROUPS = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("group", [pytest.param(g, marks=pytest.mark.xdist_group(g)) for g in "ab"])
def test_it(group, number):
    (pathlib.Path({folder!r}) / f"{{group}} {{os.environ['PYTEST_XDIST_WORKER']}}").touch()
"""


@pytest.mark.slow
def test_a_group_has_one_worker(pytester: pytest.Pytester) -> None:
    """As pytest and xdist are locked: some of their versions forget the groups and say nothing."""
    pytester.makepyfile(test_it=GROUPS.format(folder=str(pytester.path)))
    pytester.runpytest_inprocess("-n", "2", "--dist", "loadgroup").assert_outcomes(passed=8)
    ran = sorted(found.name.split()[0] for found in Path(pytester.path).glob("? gw?"))
    assert ran == ["a", "b"]
