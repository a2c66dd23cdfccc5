"""The file-system primitives: whole or not at all, durable on return, a full volume named."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtjob_trainer.ledger import durable
from tests.support.builders import tiny_plan
from tests.support.ledgers.durability import Crash, Disk, Job, no_fault, state_at, with_disk


@contextlib.contextmanager
def volume_of(folder: Path, kibibytes: int) -> Iterator[Callable[[], None]]:
    """A volume that yields the way to fill it up; calling it again makes room.

    A file system of its own where this process may mount one, and the kernel's limit on the
    size of a file where it may not: both refuse a write for real.
    """
    folder.mkdir()
    size = f"size={kibibytes}k"
    mount = ["mount", "-t", "tmpfs", "-o", size, "dtjob-test", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ballast = folder / "ballast"

    def toggle() -> None:
        if not mounted:
            full = resource.getrlimit(resource.RLIMIT_FSIZE) != limit
            resource.setrlimit(resource.RLIMIT_FSIZE, limit if full else (100, limit[1]))
        elif ballast.exists():
            ballast.unlink()
        else:
            ballast.write_bytes(bytes(durable.free_bytes(folder)))

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield toggle
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def crash_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[Path], None]
) -> list[bytes]:
    """Contents of `folder/file` after the power fails before each call of `action`."""
    seen: list[bytes] = []
    for crash_at in range(1, 100):
        root = folder / str(crash_at)
        root.mkdir()
        (root / "file").write_bytes(b"old")
        disk = Disk(root, crash_at)
        with_disk(disk, monkeypatch)
        try:
            action(root / "file")
        except Crash:
            disk.power_off()
            seen.append((root / "file").read_bytes())
            continue
        disk.power_off()
        seen.append((root / "file").read_bytes())
        return seen
    raise AssertionError("the action never ended")


def write_new(path: Path) -> None:
    with durable.new_file(path, replace=True) as file:
        file.write(b"ne")
        file.write(b"w")


@pytest.mark.rule(14)
def test_replaced_file_is_old_or_new_at_every_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = crash_everywhere(tmp_path, monkeypatch, write_new)
    assert set(seen) == {b"old", b"new"}
    assert seen[-1] == b"new"


@pytest.mark.rule(11)
def test_appended_bytes_are_durable_on_return_and_a_prefix_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = crash_everywhere(tmp_path, monkeypatch, lambda path: durable.append(path, b" + new"))
    assert all(b"old + new".startswith(content) for content in seen)
    assert seen[-1] == b"old + new"


def test_new_name_is_taken_once(tmp_path: Path) -> None:
    durable.create(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_name_that_was_taken_by_this_very_file_is_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may repeat a link whose answer was lost, and refuse the second."""
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    durable.create(tmp_path / "one", b"new")
    assert (tmp_path / "one").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_new_folder_and_its_parents_survive_the_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    with_disk(disk, monkeypatch)
    durable.make_folder(tmp_path / "a" / "b")
    durable.create(tmp_path / "a" / "b" / "file", b"here")
    disk.power_off()
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"here"


def test_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with durable.new_file(path, replace=True) as file:
            file.write(b"half")
            raise ValueError("the payload can't be written")

    with pytest.raises(ValueError, match="payload"):
        fail(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_file_size_limit_is_named_like_a_full_volume(tmp_path: Path) -> None:
    """A real refusal by the kernel, without privileges: RLIMIT_FSIZE."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(durable.VolumeFull, match="needs 4096 bytes") as full:
            durable.create(tmp_path / "file", bytes(4096))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert full.value.needed == 4096
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_in_vain_takes_its_whole_size_of_a_volume_that_compresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is to prove that a checkpoint will fit."""
    written: list[bytes] = []
    remove = durable.remove

    def read_and_removed(path: Path) -> None:
        written.append(path.read_bytes())
        remove(path)

    monkeypatch.setattr(durable, "remove", read_and_removed)
    durable.write_in_vain(tmp_path / "room", 300_000)
    [content] = written
    assert len(content) == 300_000
    assert len(zlib.compress(content)) >= len(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rule(14)
def test_volume_that_fills_up_keeps_checkpoint_and_ledger(tmp_path: Path) -> None:
    """On a real volume of 64 KiB: refused, named, and the job goes on after."""
    volume = tmp_path / "volume"
    with volume_of(volume, 64) as toggle_full:
        job = Job(volume / "job", tiny_plan(steps=3, lease_steps=2, reserve=4))
        job.create()
        leased, _ = job.opened()
        assert [job.draw(leased), job.draw(leased)] == [0, 1]
        toggle_full()
        with pytest.raises(durable.VolumeFull) as full:
            leased.publish(2, state_at(2))
        message = str(full.value)
        assert str(volume) in message
        assert re.search(r"needs \d+ bytes, \d+ are free", message)
        assert "are intact; enlarge the volume" in message
        assert full.value.needed > 0
        status = job.check().status
        assert status.checkpoint is not None
        assert (status.charged, status.checkpoint.step) == (2, 0)
        toggle_full()
        job.run()
        finished = job.check().status.checkpoint
        assert finished is not None
        assert finished.step == 3


CALLS = ("open", "link", "rename", "mkdir", "unlink", "write", "fsync")


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *((call, errno.EROFS) for call in CALLS),
        *(("open", number) for number in (errno.EACCES, errno.EPERM, errno.ENOTDIR)),
        *(("link", number) for number in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)),
    ],
)
def test_volume_that_refuses_is_named_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """No other try cures it; a person does."""
    (tmp_path / "old").write_bytes(b"old")
    disk = Disk(tmp_path)
    disk.fail = lambda name, _: number if name == call else None
    with_disk(disk, monkeypatch)

    def use() -> None:
        durable.make_folder(tmp_path / "a")
        durable.create(tmp_path / "a" / "new", b"new")
        with durable.new_file(tmp_path / "old", replace=True) as file:
            file.write(b"new")
        durable.append(tmp_path / "old", b"more")
        durable.remove(tmp_path / "old")

    with pytest.raises(durable.VolumeUnusable) as refused:
        use()
    message = str(refused.value.strerror)
    for words in (str(tmp_path), os.strerror(number), f"user {os.getuid()}", "are intact"):
        assert words in message


@pytest.mark.parametrize(
    "write",
    [
        lambda path: durable.create(path, b"new"),
        lambda path: durable.write_in_vain(path, 1),
        lambda path: durable.append(path, b"more"),
    ],
    ids=["create", "replace", "append"],
)
def test_what_dtjob_itself_misses_is_not_a_tasks_missing_file(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """A volume that was taken away in mid-run: no other try brings it back."""
    path = tmp_path / "state" / "attempt-1" / "journal"
    with pytest.raises(durable.VolumeUnusable) as refused:
        write(path)
    message = str(refused.value.strerror)
    assert f"{path}: {os.strerror(errno.ENOENT)}" in message
    assert f"{tmp_path / 'state'} was there before: mount it again, or put it back" in message
    (tmp_path / "state" / "attempt-1").mkdir(parents=True)
    assert str(durable.VolumeUnusable(path, errno.ENOENT)).count(f"{path} was there before") == 1


@pytest.mark.parametrize("replace", [True, False])
def test_a_folder_that_goes_while_it_is_written_into_is_dtjobs_own(
    tmp_path: Path, replace: bool
) -> None:
    path = tmp_path / "attempt-1" / "file"
    path.parent.mkdir()

    def write() -> None:
        with durable.new_file(path, replace=replace) as file:
            file.write(b"new")
            path.parent.rename(tmp_path / "away")

    with pytest.raises(durable.VolumeUnusable) as refused:
        write()
    assert (refused.value.errno, refused.value.filename) == (errno.ENOENT, str(path))


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_rename_that_is_repeated_is_known_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    """A network file system may repeat it after a lost answer, and then miss the first name."""
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)
    rename = os.rename

    def repeated(source: Path, target: Path) -> None:
        rename(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", repeated)
    write_new(path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"new")]


def test_a_rename_that_missed_its_file_is_not_known_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def missed(source: Path, target: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    monkeypatch.setattr(os, "rename", missed)
    with pytest.raises(durable.VolumeUnusable):
        write_new(path)
    assert path.read_bytes() == b"old"


def test_volume_that_is_mounted_read_only_holds_the_job_which_goes_on_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lease is lost at most, also if it is tried again and again."""
    disk = Disk(tmp_path)
    with_disk(disk, monkeypatch)
    job = Job(tmp_path / "job", tiny_plan(steps=3, lease_steps=2, reserve=4))
    job.create()
    leased, _ = job.opened()
    assert [job.draw(leased), job.draw(leased)] == [0, 1]

    def read_only(name: str, arguments: tuple[object, ...]) -> int | None:
        of_the_volume = str(job.state_dir) in str(arguments[0])
        writes = name == "open" and arguments[1] != os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return errno.EROFS if of_the_volume and (writes or name == "mkdir") else None

    disk.fail = read_only
    with pytest.raises(durable.VolumeUnusable):
        leased.publish(2, state_at(2))
    for _ in range(3):
        with pytest.raises(durable.VolumeUnusable):
            job.opened()
    assert job.check().status.charged == 2
    disk.fail = no_fault
    job.run()
    finished = job.check().status
    assert (finished.charged, finished.outcome is not None) == (5, True)


def test_only_what_the_disk_denies_is_absent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "unmounted")
    assert durable.is_absent(tmp_path / "folder" / "state")
    assert not durable.is_absent(tmp_path / "file")
    assert not durable.is_absent(link)
    for hidden in (link / "state", link / "a" / "state", tmp_path / "file" / "state"):
        with pytest.raises(durable.VolumeUnusable):
            durable.is_absent(hidden)
