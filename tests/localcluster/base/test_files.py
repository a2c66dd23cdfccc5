"""A lock has one holder, and ends with it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.files import locked
from localcluster.base.paths import import_folder


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"""if True:
        import sys; sys.path.insert(0, {str(import_folder())!r})
        from pathlib import Path
        from localcluster.base.files import locked
        with locked(Path({str(lock)!r}), timeout=5, holder="testing", tell=print):
            print("held", flush=True); input()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout
    assert other.stdout.readline() == b"held\n"
    told: list[str] = []
    with (
        pytest.raises(ClusterError, match=rf"\(PID {other.pid}\) has been testing for"),
        locked(lock, timeout=0.2, holder="testing", tell=told.append),
    ):
        pass
    assert told == [f"  waiting for another process (PID {other.pid}), which is testing"]
    other.kill()
    other.communicate()
    with locked(lock, timeout=5, holder="testing", tell=told.append):
        pass
    assert len(told) == 1


def test_a_holder_is_named_by_the_pid_that_it_writes_after_taking_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def write_then_release(_seconds: float) -> None:
            if held.tell():
                fcntl.flock(held, fcntl.LOCK_UN)
            held.write("PID 7")
            held.flush()

        monkeypatch.setattr("localcluster.base.files.time.sleep", write_then_release)
        told: list[str] = []
        with locked(lock, timeout=5, holder="testing", tell=told.append):
            pass
    assert told == ["  waiting for another process (PID 7), which is testing"]
    assert lock.read_text() == ""
