"""Tests run in a copy of the checkout, by a process of their own that has torch already."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

import pytest

_TIMEOUT_SECONDS = 120
"""Of a test: a mutation may keep it waiting for ever, and is told by that too."""
_LIBRARIES = ("dp_accounting.pld", "opacus", "pydantic", "scipy.stats", "torch.distributed")
_OURS = ("dtjob_", "testing", "tests", "mutations")


def import_libraries() -> None:
    """Import what takes seconds, once; no package of ours, which a trial has from its copy."""
    os.environ["OMP_NUM_THREADS"] = "1"  # trials run side by side
    for name in _LIBRARIES:
        importlib.import_module(name)


@dataclass(frozen=True)
class Outcomes:
    """What became of tests.

    Attributes
    ----------
    ran, failed
        By `path::name`, each case of a parametrised test by its own.
    """

    ran: frozenset[str]
    failed: frozenset[str]

    def not_run(self, tests: Sequence[str]) -> list[str]:
        """Those of these tests of which no case ran: what a file that can't be imported leaves."""
        return [test for test in tests if not _cases(test, self.ran)]

    def passed(self, tests: Sequence[str]) -> list[str]:
        """Those of these tests that ran, and of which no case failed."""
        return [test for test in tests if _cases(test, self.ran) and not _cases(test, self.failed)]


def _cases(test: str, names: frozenset[str]) -> list[str]:
    return [name for name in names if name == test or name.startswith(f"{test}[")]


class Trial:
    """Runs tests in a copy; started at once.

    Attributes
    ----------
    sentinel
        Readable once it has ended.
    log
        The file with what pytest says.
    """

    def __init__(self, folder: Path, tests: Sequence[str]) -> None:
        context = multiprocessing.get_context("fork")
        self.log = folder.with_suffix(".log")
        self._outcomes, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(folder, tests, self.log, theirs))
        self._process.start()
        theirs.close()
        self.sentinel = self._process.sentinel

    def outcomes(self) -> Outcomes:
        """Wait for its end; nothing ran where it died."""
        try:
            found = Outcomes(*self._outcomes.recv())
        except EOFError:
            found = Outcomes(frozenset(), frozenset())
        self._process.join()
        self._outcomes.close()
        return found


class _Recorder:
    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran.add(report.nodeid)
        if report.failed:
            self.failed.add(report.nodeid)


def _run(folder: Path, tests: Sequence[str], log: Path, answer: Connection) -> None:
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    places = [str(path.parents[1]) for path in sorted(folder.glob("*/dtjob_*/__init__.py"))]
    sys.path[:0] = [str(folder / "tools"), *places]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    for name in [name for name in sys.modules if name.startswith(_OURS)]:
        del sys.modules[name]
    # What a test spawns would execute it once more.
    sys.modules["__main__"] = ModuleType("__main__")
    recorder = _Recorder()
    options = ["-q", "-p", "no:cacheprovider", f"--timeout={_TIMEOUT_SECONDS}"]
    pytest.main([*options, *tests], plugins=[recorder])
    sys.stdout.flush()
    answer.send((frozenset(recorder.ran), frozenset(recorder.failed)))
    os._exit(0)
