"""What is remembered of a cluster, and which process is one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.cluster.state import (
    Process,
    Record,
    boot_id,
    holder_file,
    read_record,
    write_record,
)


def test_a_recycled_pid_is_not_ours() -> None:
    own = Process.of(os.getpid())
    assert own.alive
    assert not Process(own.pid, own.start_ticks + 1).alive
    with pytest.raises(ProcessLookupError):
        Process(own.pid, own.start_ticks + 1).kill()


def test_an_ended_process_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.alive
    process.kill()
    child.communicate()
    assert not process.alive


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, Record(slot=3, boot=boot_id()))
    assert read_record(tmp_path) == Record(slot=3, boot=boot_id())
    holder_file(tmp_path).write_text(Path("/proc/self/stat").read_text())
    read = read_record(tmp_path)
    assert read is not None
    assert read.running
    assert read.holder == Process.of(os.getpid())
    write_record(tmp_path, Record(slot=3, boot=boot_id(), nodes=2))
    of_two = read_record(tmp_path)
    assert of_two is not None
    assert of_two.nodes == 2
    write_record(tmp_path, Record(slot=3, boot="another"))
    after_boot = read_record(tmp_path)
    assert after_boot is not None
    assert not after_boot.running


def test_a_record_that_does_not_say_how_many_nodes_is_of_one(tmp_path: Path) -> None:
    """So were all clusters once, and one of them may run."""
    (tmp_path / "record.json").write_text('{"slot": 3, "boot": "b", "linked": true}')
    assert read_record(tmp_path) == Record(slot=3, boot="b", linked=True, nodes=1)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"slot": 1}'])
def test_a_record_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ClusterError, match="is not a record of a cluster"):
        read_record(tmp_path)
