"""The journal: what a crash may leave is read, anything else is refused (rule 11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from durability import JOB_UID

from dtjob_trainer.journal import (
    Entry,
    Header,
    Journal,
    JournalUnreadable,
    attempts_on,
    parse,
    read_all,
)

HEADER = Header(JOB_UID, attempt=3, charged=20)
ENTRIES = (Entry(17, 27, 17), Entry(27, 37, 27), Entry(37, 40, 37))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    made = Journal(tmp_path, HEADER)
    made.create()
    for entry in ENTRIES:
        made.append(entry)
    return made.path


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


def test_attempt_number_is_used_once(journal: Path, tmp_path: Path) -> None:
    """Rule 2: two processes under one number would draw with one name."""
    with pytest.raises(FileExistsError):
        Journal(tmp_path, HEADER).create()


def test_attempts_are_counted_by_number_and_nothing_else_is_one(tmp_path: Path) -> None:
    for name in ("attempt-10", "attempt-9", "attempt-09", "attempt-x", "lost+found"):
        (tmp_path / name).mkdir()
    assert attempts_on(tmp_path) == [9, 10]
    assert read_all(tmp_path) == []
