"""Tests that measure seconds run beside no other test of another worker."""

from __future__ import annotations

import pytest

TESTS = """
import os, pathlib, pytest, time
HERE = pathlib.Path({folder!r})
{mark}
def test_alone():
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert not list(HERE.glob("in-*"))
@pytest.mark.parametrize("number", range(30))
def test_other(number):
    mine = HERE / f"in-{{os.getpid()}}"
    mine.touch()
    time.sleep(0.1)
    mine.unlink()
"""
INI = "[pytest]\nmarkers =\n  alone: alone\n"


@pytest.mark.slow
@pytest.mark.parametrize(("mark", "passed"), [("@pytest.mark.alone", 31), ("", 30)])
def test_who_is_alone_is_beside_nobody(pytester: pytest.Pytester, mark: str, passed: int) -> None:
    pytester.makefile(".ini", pytest=INI)
    pytester.makepyfile(test_it=TESTS.format(folder=str(pytester.path), mark=mark))
    plugins = ("-p", "xdist", "-p", "testing.together", "-p", "testing.alone")
    result = pytester.runpytest_inprocess(*plugins, "-n", "2")
    result.assert_outcomes(passed=passed, failed=31 - passed)
