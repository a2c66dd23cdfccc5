"""Shards are the same everywhere and even; what has passed at a commit is not run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testing import nightly
from testing.shards import Progress, Shard, members
from tests.support.pytest_sessions import PLUGINS, alone_and_with_workers

TESTS = """
import pathlib, pytest
from hypothesis import given, strategies
@pytest.mark.nightly(minutes=5)
def test_long(): pass
@pytest.mark.nightly
def test_once_bad(): assert pathlib.Path("good").exists()
@given(strategies.booleans())
def test_property(value): pass
def test_cheap(): pass
"""

DEAR = """
import pytest
pytestmark = pytest.mark.nightly(minutes=8, together=True)
@pytest.mark.parametrize("case", range(4))
def test_dear(case): pass
"""


@given(
    st.dictionaries(st.text("abc", min_size=1), st.floats(0.5, 20), max_size=30),
    st.integers(1, 5),
)
def test_every_test_is_in_one_shard_and_shards_are_even(
    minutes: dict[str, float], count: int
) -> None:
    shards = [members(minutes, Shard(f"{k}/{count}")) for k in range(1, count + 1)]
    assert sorted(name for shard in shards for name in shard) == sorted(minutes)
    loads = [sum(minutes[name] for name in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(minutes.values(), default=0) + 1e-9
    backwards = dict(reversed(minutes.items()))
    assert members(backwards, Shard(f"1/{count}")) == shards[0]


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Shard(text)


@alone_and_with_workers
def test_a_shard_goes_on_with_what_has_not_passed(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_it=TESTS)
    file = Path(pytester.path) / "progress"
    command = (*PLUGINS, "--tier=nightly", f"--progress={file}", *workers)
    pytester.runpytest_inprocess(*command).assert_outcomes(passed=2, failed=1)
    Path("good").touch()
    pytester.runpytest_inprocess(*command).assert_outcomes(passed=1)
    assert pytester.runpytest_inprocess(*command).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    progress = Progress(file)
    assert progress.tests(Shard("1/1")) == {
        "test_it.py::test_long": 5,
        "test_it.py::test_once_bad": 1,
        "test_it.py::test_property": 2,
    }
    assert all(passed for passed, _ in progress.results().values())


def test_shards_of_a_session_have_all_its_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=TESTS)
    Path("good").touch()
    for shard, count in (("1/2", 1), ("2/2", 2)):
        result = pytester.runpytest_inprocess(
            *PLUGINS, "--tier=nightly", f"--progress={pytester.path}/p", f"--shard={shard}"
        )
        result.assert_outcomes(passed=count)


@alone_and_with_workers
def test_a_module_whose_tests_share_what_is_dear_is_in_one_shard(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_it=TESTS, test_dear=DEAR)
    Path("good").touch()
    file = Path(pytester.path) / "progress"
    command = (*PLUGINS, "--tier=nightly", f"--progress={file}", *workers)
    pytester.runpytest_inprocess(*command, "--shard=1/2").assert_outcomes(passed=4)
    pytester.runpytest_inprocess(*command, "--shard=2/2").assert_outcomes(passed=3)
    assert sum(Progress(file).tests(Shard("1/2")).values()) == 8
    assert {name.partition("::")[0] for name in Progress(file).tests(Shard("1/2"))} == {
        "test_dear.py"
    }


def test_the_page_keeps_the_rows_of_one_division(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress")
    progress.add(shard="2/2", tests={"a": 1, "b": 1, "c": 1})
    progress.add(test="a", passed=False, seconds=30)
    progress.add(test="a", passed=True, seconds=60)
    progress.add(test="b", passed=False, seconds=30)
    progress.add(test="of the other shard", passed=True, seconds=600)
    second = nightly.row(Shard("2/2"), "abc", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), progress)
    assert second == "| 2/2 | abc | 2026-01-02 03:04 | 3 | 1 | 1 | 1 | 2.0 |"
    page = nightly.page("", Shard("2/2"), second)
    page = nightly.page(page, Shard("1/2"), "| 1/2 | abc |")
    assert page.endswith(f"|\n| 1/2 | abc |\n{second}\n")
    page = nightly.page(page, Shard("1/2"), "| 1/2 | def |")
    assert "| 1/2 | abc |" not in page
    assert second in page
    assert nightly.page(page, Shard("1/3"), "| 1/3 | abc |").count("\n| ") == 2


@pytest.mark.slow
def test_a_night_is_written_to_the_page(pytester: pytest.Pytester) -> None:
    folder = Path(pytester.path)
    # Below testpaths, as the project has them: only there its options are known to pytest.
    pytester.makeini("[pytest]\ntestpaths = tests\n")
    pytester.mkdir("tests")
    (folder / "tests/test_it.py").write_text(TESTS)
    (folder / "tests/conftest.py").write_text(
        "pytest_plugins = ['testing.tiers', 'testing.figures', 'testing.shards']\n"
    )
    (folder / "docs/design").mkdir(parents=True)
    (folder / ".gitignore").write_text("good\n.*\n__pycache__\n")
    me = ["-c", "user.name=test", "-c", "user.email=test@example.test"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], check=True)
    commit = nightly._commit()
    assert re.fullmatch("[0-9a-f]{12}", commit)

    def night(shard: str) -> tuple[int, str]:
        program = [sys.executable, "-m", "testing.nightly", shard]
        environment = {**os.environ, "PYTHONPATH": str(Path(nightly.__file__).parents[1])}
        environment.pop("PYTEST_XDIST_WORKER", None)
        code = subprocess.run(program, env=environment, check=False).returncode
        return code, nightly.PAGE.read_text() if nightly.PAGE.exists() else ""

    assert night("1/0") == (2, "")
    code, page = night("1/1")
    assert code == 1
    assert re.search(rf"\n\| 1/1 \| {commit} \| .* \| 3 \| 2 \| 1 \| 0 \| 0.0 \|\n$", page)
    (folder / "good").touch()
    code, page = night("1/1")
    assert code == 0
    assert re.search(rf"\n\| 1/1 \| {commit} \| .* \| 3 \| 3 \| 0 \| 0 \| 0.0 \|\n$", page)
    (folder / "tests/test_it.py").write_text(TESTS.replace("minutes=5", "minutes=50"))
    assert nightly._commit().startswith(f"{commit} with changes ")
    assert night("1/1") == (2, page)


@pytest.mark.parametrize(
    ("collects", "tests", "runs", "code"),
    [
        (True, {"a": 1}, ["a"], 0),
        (True, {"a": 1, "b": 1}, ["a"], 0),
        (True, {"a": 1}, [], 1),
        (True, {}, [], 2),
        (False, {"a": 1}, ["a"], 1),
    ],
    ids=["all", "what it can", "nothing", "no test", "unreadable"],
)
def test_a_night_without_a_result_is_no_success(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    collects: bool,
    tests: dict[str, float],
    runs: list[str],
    code: int,
) -> None:
    def played(*arguments: str) -> bool:
        (file,) = (told for told in arguments if told.startswith("--progress="))
        progress = Progress(Path(file.partition("=")[2]))
        if "--collect-only" in arguments:
            progress.add(shard="1/1", tests=tests)
            return collects
        for name in runs:
            progress.add(test=name, passed=True, seconds=1)
        return True

    monkeypatch.chdir(tmp_path)
    nightly.PAGE.parent.mkdir(parents=True)
    monkeypatch.setattr(nightly, "_commit", lambda: "abc")
    monkeypatch.setattr(nightly, "_pytest", played)
    assert nightly.main("1/1") == code


def test_a_commit_with_changes_is_known_by_all_that_changed(pytester: pytest.Pytester) -> None:
    folder = Path(pytester.path)
    (folder / "tracked").write_text("a")
    me = ["-c", "user.name=test", "-c", "user.email=test@example.test"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], check=True)
    seen = [nightly._commit()]
    for name, content in (
        ("untracked", b"a"),
        ("untracked", b"b"),
        ("ünträcked", b"\xff"),
        ("ünträcked", b"\xfe"),
        ("tracked", b"\0\xff"),
        ("tracked", b"\0\xfe"),
    ):
        (folder / name).write_bytes(content)
        seen.append(nightly._commit())
    (folder / "link").symlink_to("nowhere")
    seen.append(nightly._commit())
    assert len(set(seen)) == len(seen)
