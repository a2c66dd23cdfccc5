"""Logs beside the checkpoints: their bound, a full volume, and who takes their room."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtjob_trainer.retention import log_volume
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume, closed, log_path, sizes

KEY = LogKey(2, 1)


def text(folder: Path, key: LogKey = KEY) -> str:
    return log_path(folder, key).read_text()


def full(monkeypatch: pytest.MonkeyPatch, takes: Any) -> None:
    """A volume that says that it has room, as one with a quota, and takes what `takes` lets it."""
    write = os.write

    def refused(descriptor: int, data: bytes) -> int:
        if not takes():
            raise OSError(errno.EDQUOT, "quota")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refused)


def test_a_rank_has_a_file_in_each_attempt(tmp_path: Path) -> None:
    logs = LogVolume(tmp_path, 1 << 20)
    logs.add(LogKey(1, 0), b"a\n", ranks=2)
    logs.add(KEY, b"b\n", ranks=2)
    LogVolume(tmp_path, 1 << 20).add(KEY, b"c\n", ranks=2)  # the coordinator was started again
    assert (tmp_path / "logs/2/rank-1.log").read_text() == "b\nc\n"
    assert sizes(tmp_path) == {LogKey(1, 0): 2, KEY: 4}


def test_a_long_log_keeps_its_end_and_says_what_was_cut(tmp_path: Path) -> None:
    logs = LogVolume(tmp_path, 4000)
    for number in range(120):
        logs.add(KEY, f"line {number:03} {'x' * 30}\n".encode(), ranks=1)
    first, *lines = text(tmp_path).splitlines()
    said = json.loads(first)
    assert (said["component"], said["message"]) == ("logs", "cut")
    assert said["bytes"] > 0
    assert lines[-1].startswith("line 119")
    assert all(line.startswith("line ") for line in lines)
    assert sizes(tmp_path)[KEY] <= 4000


def test_the_oldest_attempts_make_room_for_the_newest(tmp_path: Path) -> None:
    logs = LogVolume(tmp_path, 4000)
    for attempt in range(1, 6):
        logs.add(LogKey(attempt, 0), b"x" * 1500, ranks=1)
    assert sizes(tmp_path) == {LogKey(4, 0): 1500, LogKey(5, 0): 1500}


def test_what_a_full_volume_does_not_take_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs, has_room = LogVolume(tmp_path, 1 << 20), True
    full(monkeypatch, lambda: has_room)
    logs.add(KEY, b"before\n", ranks=1)
    has_room = False
    logs.add(KEY, b"lost\n", ranks=1, dropped=3)
    has_room = True
    logs.add(KEY, b"after\n", ranks=1)
    before, said, after = text(tmp_path).splitlines()
    assert (before, after) == ("before", "after")
    assert (json.loads(said)["message"], json.loads(said)["bytes"]) == ("dropped", 8)


def test_earlier_attempts_go_where_the_volume_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogVolume(tmp_path, 1 << 20)
    logs.add(LogKey(1, 0), b"old\n", ranks=1)
    full(monkeypatch, lambda: not log_path(tmp_path, LogKey(1, 0)).exists())
    logs.add(KEY, b"new\n", ranks=2)
    assert sizes(tmp_path) == {KEY: 4}


def test_the_last_of_a_volume_is_left_to_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogVolume(tmp_path, 1 << 20)
    figures = SimpleNamespace(f_bavail=1, f_frsize=log_volume.SPARED_BYTES)
    monkeypatch.setattr(os, "statvfs", lambda _: figures)
    logs.add(KEY, b"x", ranks=1)
    assert sizes(tmp_path) == {}
    assert logs.dropped[KEY] == 1


def test_nothing_is_added_while_somebody_takes_their_room(tmp_path: Path) -> None:
    logs = LogVolume(tmp_path, 1 << 20)
    logs.add(KEY, b"a\n", ranks=1)
    with closed(tmp_path):
        logs.add(KEY, b"bc\n", ranks=1)
        log_volume.remove(tmp_path, 2)
    assert sizes(tmp_path) == {}
    logs.add(KEY, b"d\n", ranks=1)
    said, last = text(tmp_path).splitlines()
    assert (json.loads(said)["bytes"], last) == (3, "d")


def test_a_volume_without_logs_is_closed_all_the_same(tmp_path: Path) -> None:
    with closed(tmp_path):
        assert sizes(tmp_path) == {}
