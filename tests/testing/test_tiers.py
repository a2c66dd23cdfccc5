"""What the plugin makes of markers and of what a machine lacks, seen in sessions of pytest."""

from __future__ import annotations

import pytest

from testing import needs, tiers
from tests.support.pytest_sessions import PLUGINS, alone_and_with_workers

TESTS = """
import pytest
def test_plain(): pass
@pytest.mark.models
def test_models(): pass
@pytest.mark.slow
@pytest.mark.models
def test_slow(): pass
@pytest.mark.gpu
def test_gpu(): pass
@pytest.mark.cluster
def test_cluster(): pass
@pytest.mark.pods
@pytest.mark.cluster
def test_pods(): pass
@pytest.fixture
def trainer_image(): pass
@pytest.fixture
def installed(trainer_image): pass
@pytest.mark.cluster
def test_image(installed): pass
@pytest.mark.pages
@pytest.mark.cluster
def test_pages(installed): pass
@pytest.mark.nightly
@pytest.mark.cluster
def test_nightly(): pass
"""


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that can run everything."""
    monkeypatch.setattr(tiers, "NEEDS", dict.fromkeys(needs.NEEDS, lambda: None))


@pytest.fixture
def folder(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider")
    return pytester


def run(folder: pytest.Pytester, text: str, *arguments: str) -> tuple[pytest.RunResult, list[str]]:
    folder.makepyfile(test_it=text)
    result = folder.runpytest_inprocess(*PLUGINS, "-v", *arguments)
    lines = [line for line in result.outlines if "PASSED" in line]
    return result, [line.partition("::")[2].split()[0].removeprefix("test_") for line in lines]


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("check", ["plain"]),
        ("models", ["models"]),
        ("processes", ["slow", "gpu"]),
        ("cluster", ["cluster"]),
        ("pods", ["pods", "image"]),
        ("docs", ["pages"]),
        ("nightly", ["nightly"]),
        ("docs,pods,check", ["plain", "pods", "image", "pages"]),
    ],
)
def test_a_tier_has_its_tests_and_cheap_ones_come_first(
    folder: pytest.Pytester, tier: str, expected: list[str]
) -> None:
    result, passed = run(folder, TESTS, f"--tier={tier}")
    assert result.ret == 0
    assert passed == expected


def test_every_test_belongs_to_one_tier(folder: pytest.Pytester) -> None:
    counts = [len(run(folder, TESTS, f"--tier={tier}")[1]) for tier in tiers.Tier]
    assert sum(counts) == len(run(folder, TESTS)[1])


def test_an_unknown_tier_is_named(folder: pytest.Pytester) -> None:
    result, _ = run(folder, TESTS, "--tier=chekc")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'chekc' is not a valid Tier; there are check, models" in result.stderr.str()


UNMARKED = """
import pytest
@pytest.fixture
def {fixture}(): pass
{marker}
def test_it({fixture}): pass
@pytest.mark.cluster
def test_marked({fixture}): pass
"""


@pytest.mark.parametrize(
    ("fixture", "marker"),
    [
        ("some", "@pytest.mark.pods"),
        ("trainer_image", ""),
        ("standin_image", "@pytest.mark.nightly"),
        ("cluster", "@pytest.mark.pages"),
    ],
)
def test_a_test_of_a_cluster_that_does_not_say_so_fails_in_every_tier(
    folder: pytest.Pytester, fixture: str, marker: str
) -> None:
    text = UNMARKED.format(fixture=fixture, marker=marker)
    result, passed = run(folder, text, "--tier=check", "-m", "not cluster")
    assert (result.ret, passed) == (pytest.ExitCode.TESTS_FAILED, [])
    result.stdout.fnmatch_lines(
        ["it needs a cluster: without the marker cluster no target runs it"]
    )


@alone_and_with_workers
def test_what_a_machine_lacks_is_said_once_and_fails_nothing(
    folder: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    folder.makeconftest(
        "from testing import tiers\n"
        "tiers.NEEDS = {'gpu': lambda: 'none here', 'cluster': lambda: None}\n"
    )
    only = "import pytest\n@pytest.mark.gpu\ndef test_gpu(): pass\n"
    result, passed = run(folder, only, "--tier=processes", *workers)
    assert (result.ret, passed) == (0, [])
    result.stdout.fnmatch_lines(["tier gpu: 1 tests not run: none here"])


@alone_and_with_workers
def test_a_skipped_test_fails_the_session(
    folder: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    text = "import pytest\ndef test_it(): pytest.skip('no')\ndef test_other(): pass\n"
    result, _ = run(folder, text, *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_it: skipped; *"])
