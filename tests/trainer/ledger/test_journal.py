"""The journal: what a crash may leave is read, anything else is refused (rule 11)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dtjob_api.job.training import MAX_STEPS
from dtjob_api.ledger.privacy_ledger import MAX_DRAWS, MAX_NUMBER
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.journal import (
    Entry,
    Header,
    Journal,
    JournalUnreadable,
    NoSuchNumber,
    attempts_on,
    parse,
    read_all,
)
from tests.support.builders import UID

HEADER = Header(UID, attempt=3, charged=20)
ENTRIES = (Entry(17, 27, 17), Entry(27, 37, 27), Entry(37, 40, 37))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    made = Journal(tmp_path, HEADER)
    made.create()
    for entry in ENTRIES:
        made.append(entry)
    return made.path


@pytest.mark.rule(11)
def test_what_was_written_is_read(journal: Path, tmp_path: Path) -> None:
    [read] = read_all(tmp_path)
    assert (read.path, read.header, read.entries) == (journal, HEADER, ENTRIES)
    assert read.charged == 40


def test_header_alone_vouches_for_what_was_charged_before(tmp_path: Path) -> None:
    Journal(tmp_path, HEADER).create()
    assert read_all(tmp_path)[0].charged == 20


def test_every_truncation_is_a_whole_prefix_or_refused(journal: Path) -> None:
    """A crash cuts the last line; a lease is read with its newline or not at all."""
    data = journal.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        whole = sum(1 for end in ends if end <= size)
        if whole == 0:  # the header appears with its name, so no crash cuts it
            with pytest.raises(JournalUnreadable, match="line 1: the header is missing"):
                parse(journal, data[:size], 3)
        else:
            assert parse(journal, data[:size], 3).entries == ENTRIES[: whole - 1]


@pytest.mark.rule(11)
def test_no_changed_digit_makes_the_journal_vouch_for_less_unnoticed(journal: Path) -> None:
    """Cut in the middle and joined: refused, never read as something else."""
    lines = journal.read_bytes().splitlines(keepends=True)
    for torn in (
        lines[0] + lines[1][:9] + lines[2],
        lines[0] + b"\n" + lines[1],
        lines[0] + lines[2] + lines[1],
        lines[0] + lines[1].replace(b"to_draw", b"till_draw"),
        lines[0] + lines[1].replace(b"27", b"-7"),
        lines[0] + lines[1].replace(b"27", b'"27"'),
        lines[0] + lines[1].replace(b"27", b"true"),
        lines[0] + lines[1].replace(b"27", b"17"),
        lines[0] + lines[1] + lines[3],
        lines[0] + lines[1] + b"\0" * 40 + b"\n",
        lines[1] + lines[2],
    ):
        with pytest.raises(JournalUnreadable, match=r"journal, line \d: "):
            parse(journal, torn, 3)


def test_journal_of_another_attempt_is_refused(journal: Path) -> None:
    with pytest.raises(JournalUnreadable, match="it is the journal of attempt 3"):
        parse(journal, journal.read_bytes(), 4)


@pytest.mark.rule(2)
def test_attempt_number_is_used_once(journal: Path, tmp_path: Path) -> None:
    """Two processes under one number would draw with one name."""
    with pytest.raises(FileExistsError):
        Journal(tmp_path, HEADER).create()


def test_attempts_are_counted_by_number_and_nothing_else_is_one(tmp_path: Path) -> None:
    for name in ("attempt-10", "attempt-9", "attempt-09", "attempt-x", "lost+found"):
        (tmp_path / name).mkdir()
    assert attempts_on(tmp_path) == [9, 10]
    assert read_all(tmp_path) == []


def test_a_journal_that_leads_nowhere_is_not_one_that_never_was(
    journal: Path, tmp_path: Path
) -> None:
    """As a link to a volume that is not mounted: its content is out of sight."""
    journal.rename(journal.with_name("elsewhere"))
    assert read_all(tmp_path) == []
    journal.symlink_to("/nowhere/journal")
    with pytest.raises(durable.VolumeUnusable) as refused:
        read_all(tmp_path)
    assert refused.value.filename == str(journal)


def test_a_volume_that_leads_nowhere_is_not_an_empty_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert attempts_on(state) == []
    state.symlink_to("/nowhere/state")
    with pytest.raises(durable.VolumeUnusable) as refused:
        attempts_on(state)
    assert refused.value.filename == str(state)


@pytest.mark.rule(11)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTDIR])
@pytest.mark.parametrize("name", ["state", "journal"])
def test_what_cannot_be_looked_at_is_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """A folder without the right to look into it, a disk that fails, a network file system."""
    state = tmp_path / "state"
    made = Journal(state, HEADER)
    made.create()
    (path,) = [path for path in (state, made.path) if path.name == name]
    lstat = os.lstat

    def failing(asked: Path) -> os.stat_result:
        if Path(asked) == path:
            raise OSError(number, os.strerror(number))
        return lstat(asked)

    monkeypatch.setattr(os, "lstat", failing)
    with pytest.raises(durable.VolumeUnusable) as refused:
        read_all(state)
    assert (refused.value.errno, refused.value.filename) == (number, str(path))


def _as_a_queue(path: Path) -> None:
    os.mkfifo(path)


def _as_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.rule(11)
@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [_as_a_queue, _as_a_device, Path.mkdir])
def test_a_journal_that_is_no_file_is_refused_and_not_waited_for(
    journal: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Who reads a queue waits for a writer."""
    journal.unlink()
    make(journal)
    with pytest.raises(JournalUnreadable, match="no regular file") as refused:
        read_all(tmp_path)
    assert refused.value.path == journal


@pytest.mark.parametrize("name", ["step-0.pt", ".step-7.pt.0123.tmp"])
def test_beside_a_checkpoint_a_missing_journal_is_lost(
    journal: Path, tmp_path: Path, name: str
) -> None:
    """It is an attempt's first file: without it nobody knows what was leased."""
    (journal.parent / name).touch()
    assert len(read_all(tmp_path)) == 1
    journal.unlink()
    with pytest.raises(JournalUnreadable, match="it is gone, and a checkpoint") as refused:
        read_all(tmp_path)
    assert refused.value.path == journal


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"from_draw":40,"to_draw":%d,"from_step":37}' % (MAX_DRAWS + 1),
        b'{"from_draw":40,"to_draw":50,"from_step":%d}' % (MAX_STEPS + 1),
    ],
    ids=["nested", "draws", "steps"],
)
def test_what_no_ledger_can_hold_is_refused_by_its_line(journal: Path, line: bytes) -> None:
    with pytest.raises(JournalUnreadable, match="journal, line 5: "):
        parse(journal, journal.read_bytes() + line + b"\n", 3)


def test_an_attempt_of_a_number_that_no_run_has_is_refused_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / f"attempt-{MAX_NUMBER}").mkdir()
    assert attempts_on(tmp_path) == [MAX_NUMBER]
    for number in (0, MAX_NUMBER + 1, 10**100):
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        with pytest.raises(NoSuchNumber) as refused:
            attempts_on(tmp_path)
        assert refused.value.path == folder
        folder.rmdir()
