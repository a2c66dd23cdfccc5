"""A full volume costs logs and no checkpoint: they go until what has to be written has room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtjob_trainer.ledger.durable import VolumeFull
from dtjob_trainer.ledger.room import with_room
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume, sizes
from tests.support.builders import UID
from tests.support.ledgers.durability import Job

NEWEST = LogKey(2, 0)


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A volume with logs of two attempts."""
    logs = LogVolume(tmp_path, 1 << 20)
    for key in (LogKey(1, 0), LogKey(1, 1), NEWEST):
        logs.add(key, b"x" * 1000, ranks=2)
    return tmp_path


def full_while(condition: Callable[[], bool], tried: list[int]) -> Callable[[], str]:
    def write() -> str:
        tried.append(1)
        if condition():
            raise VolumeFull(Path("volume/file"), 1, 0, "no space")
        return "written"

    return write


def test_earlier_attempts_logs_go_first(logged: Path) -> None:
    tried: list[int] = []
    write = full_while(lambda: len(sizes(logged)) == 3, tried)
    assert with_room(logged, write) == "written"
    assert set(sizes(logged)) == {NEWEST}
    assert len(tried) == 2


def test_then_all_of_them(logged: Path) -> None:
    assert with_room(logged, full_while(lambda: bool(sizes(logged)), [])) == "written"
    assert sizes(logged) == {}


def test_a_volume_that_is_full_without_logs_is_refused(logged: Path, tmp_path: Path) -> None:
    with pytest.raises(VolumeFull):
        with_room(logged, full_while(lambda: True, []))
    assert sizes(logged) == {}
    tried: list[int] = []
    with pytest.raises(VolumeFull):
        with_room(tmp_path / "other", full_while(lambda: True, tried))
    assert len(tried) == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.rule(10, 14)
def test_nothing_is_added_to_the_logs_until_it_is_written(logged: Path) -> None:
    logs = LogVolume(logged, 1 << 20)

    def write() -> None:
        if sizes(logged):
            raise VolumeFull(Path("volume/file"), 1, 0, "no space")
        logs.add(NEWEST, b"more", ranks=2)

    with_room(logged, write)
    assert sizes(logged) == {}
    assert logs.dropped[NEWEST] == 4


@pytest.mark.rule(10, 14)
@pytest.mark.parametrize("takes", [0, 500])
def test_a_job_whose_volume_its_logs_have_filled_loses_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    """Checkpoints have no room beside the logs: none at all, or for their beginning only."""
    job = Job(tmp_path)
    job.create()
    logs = LogVolume(job.state_dir, 1 << 20)
    write, checkpoints = os.write, []

    def refused(descriptor: int, data: Any) -> int:
        file = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".step-" in file and sizes(job.state_dir):
            if os.fstat(descriptor).st_size >= takes:
                raise OSError(errno.ENOSPC, "no space")
            checkpoints.append(file)
            return write(descriptor, data[:takes])
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refused)
    for attempt, stop in ((1, 2), (2, None)):
        logs.add(LogKey(attempt, 0), b"x" * 100, ranks=1)
        assert sizes(job.state_dir)
        job.run(stop)
        assert sizes(job.state_dir) == {}
    ledger = job.check()
    assert ledger.status.outcome is not None
    assert ledger.status.charged == job.plan.steps
    assert ledger.spec.job_uid == UID
    assert bool(checkpoints) == bool(takes)
