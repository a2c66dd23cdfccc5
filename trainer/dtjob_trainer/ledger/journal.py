"""The journal: every lease once more, on the checkpoint volume, before its first draw is used.

One file for each attempt, `attempt-<a>/journal`: a header line, then one line for each lease,
each a JSON object that ends in a newline. The ledger is the truth; the journal lets a resume
notice that the ledger it reads is older than what was spent (rule 11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dtjob_api.job.training import MAX_STEPS
from dtjob_api.ledger.privacy_ledger import MAX_DRAWS, MAX_NUMBER
from dtjob_trainer.ledger import durable

FILE_NAME = "journal"
_FOLDER = re.compile(r"attempt-(0|[1-9][0-9]*)")
# Whole or half-written; see `dtjob_trainer.ledger.checkpoint`.
_OF_A_CHECKPOINT = re.compile(r"\.?step-.*")
# What a ledger can hold; see `dtjob_api.ledger.privacy_ledger`.
_BOUNDS = {
    "attempt": MAX_NUMBER,
    "charged": MAX_DRAWS,
    "from_draw": MAX_DRAWS,
    "to_draw": MAX_DRAWS,
    "from_step": MAX_STEPS,
}


class JournalUnreadable(Exception):
    """A journal holds something that no crash explains; the message names file and line.

    Attributes
    ----------
    path
        The journal's file.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path

    @property
    def attempt(self) -> int | None:
        """Whose journal it is; None where the name gives no number."""
        match = _FOLDER.fullmatch(self.path.parent.name)
        return int(match.group(1)) if match and self.path.name == FILE_NAME else None


class NoSuchNumber(JournalUnreadable):
    """A name has a number that no run has: it is not dtjob's, and has to go.

    Attributes
    ----------
    path
        What has that name.
    """


@dataclass(frozen=True)
class Header:
    """First line: whose journal this is and what was charged when the attempt opened it."""

    job_uid: str
    attempt: int
    charged: int


@dataclass(frozen=True)
class Entry:
    """One lease: draws `from_draw <= c < to_draw` for steps from `from_step` on."""

    from_draw: int
    to_draw: int
    from_step: int


_Record = TypeVar("_Record", Header, Entry)


@dataclass(frozen=True)
class AttemptJournal:
    """What one attempt wrote.

    Attributes
    ----------
    charged
        The highest number of charged draws this journal vouches for.
    """

    path: Path
    header: Header
    entries: tuple[Entry, ...]

    @property
    def charged(self) -> int:
        """The end of the last lease in it, or what was charged before."""
        return max([self.header.charged, *(entry.to_draw for entry in self.entries)])


def attempt_folder(state_dir: Path, attempt: int) -> Path:
    """Where attempt number `attempt` keeps its journal and its checkpoints."""
    return state_dir / f"attempt-{attempt}"


def attempts_on(state_dir: Path) -> list[int]:
    """Numbers of the attempts that left a folder in `state_dir`, ascending.

    Raises
    ------
    NoSuchNumber
    durable.VolumeUnusable
        It is not missing, and can't be looked at, as a link to a volume that is not mounted: that
        is not to be taken for an empty one.
    """
    return sorted(_attempt_of(folder) for folder in _folders(state_dir))


def _folders(state_dir: Path) -> list[Path]:
    if durable.is_absent(state_dir):
        return []
    return [entry for entry in durable.entries(state_dir) if _FOLDER.fullmatch(entry.name)]


def _attempt_of(folder: Path) -> int:
    return numbered(folder, folder.name.rpartition("-")[2], 1, MAX_NUMBER)


def numbered(path: Path, digits: str, least: int, most: int) -> int:
    """The number in the name of `path`.

    Raises
    ------
    NoSuchNumber
        No ledger can record it.
    """
    if len(digits) > len(str(most)) or not least <= int(digits) <= most:
        raise NoSuchNumber(path, f"{path}: no run has that number; it is from {least} to {most}")
    return int(digits)


class Journal:
    """The journal of the running attempt, open for appending.

    Parameters
    ----------
    state_dir
        The checkpoint volume.
    """

    def __init__(self, state_dir: Path, header: Header) -> None:
        self.path = attempt_folder(state_dir, header.attempt) / FILE_NAME
        self._header = header
        self._torn = False

    def create(self) -> None:
        """Make folder and file with its header; durable on return.

        Raises
        ------
        FileExistsError
            Somebody else runs (or ran) under this attempt's number.
        durable.VolumeFull
        """
        durable.make_folder(self.path.parent)
        durable.create(self.path, _line(self._header))

    def append(self, entry: Entry) -> None:
        """Rule 11: write a lease down; only after this returns may its draws be used.

        After a failure the file may end in half a line, and nothing can follow that.

        Raises
        ------
        durable.VolumeFull
        JournalUnreadable
            An earlier call failed; a new attempt has a new journal.
        """
        if self._torn:
            raise JournalUnreadable(
                self.path, f"{self.path}: an earlier write failed; start a new attempt"
            )
        self._torn = True
        durable.append(self.path, _line(entry))
        self._torn = False


def read_all(state_dir: Path) -> list[AttemptJournal]:
    """Every attempt's journal in `state_dir`, ascending by attempt.

    Raises
    ------
    JournalUnreadable, durable.VolumeUnusable
        It names the file.
    """
    journals, unreadable = examined(state_dir)
    for error in unreadable:
        raise error
    return journals


def examined(state_dir: Path) -> tuple[list[AttemptJournal], list[JournalUnreadable]]:
    """The journals in `state_dir` that can be read, ascending by attempt, and why others can't.

    A folder without a journal belongs to an attempt that died before its first lease. The journal
    is the first file in it, so beside a checkpoint one is lost, and its content is unknown.

    Raises
    ------
    durable.VolumeUnusable
    """
    journals, unreadable = [], []
    for folder in _folders(state_dir):
        path = folder / FILE_NAME
        try:
            attempt = _attempt_of(folder)
            if (data := _read(path)) is not None:
                journals.append(parse(path, data, attempt))
        except JournalUnreadable as error:
            unreadable.append(error)
    return sorted(journals, key=lambda journal: journal.header.attempt), unreadable


def _read(path: Path) -> bytes | None:
    """A journal's bytes; None where the attempt never had one.

    A name that leads nowhere is a journal all the same: its volume is not mounted.
    """
    # Before the journal is looked for: a run that goes on makes it first.
    beside = [entry.name for entry in durable.entries(path.parent)]
    if durable.is_absent(path):
        if any(_OF_A_CHECKPOINT.fullmatch(name) for name in beside):
            why = "it is gone, and a checkpoint that was saved after it is there"
            raise JournalUnreadable(path, f"{path}: {why}")
        return None
    try:
        return durable.read(path)
    except durable.NoFile as error:
        raise JournalUnreadable(path, str(error)) from error


def parse(path: Path, data: bytes, attempt: int) -> AttemptJournal:
    """Read one journal's bytes.

    A last line without its newline is one whose write never returned: nobody used that lease,
    and it is ignored. Whatever else can't be read is refused: no crash leaves that behind.

    Raises
    ------
    JournalUnreadable
    """
    lines = data.split(b"\n")[:-1]
    if not lines:
        raise _unreadable(path, 1, "the header is missing")
    header = _parsed(path, 1, lines[0], Header)
    if header.attempt != attempt:
        raise _unreadable(path, 1, f"it is the journal of attempt {header.attempt}")
    entries = tuple(_parsed(path, n, line, Entry) for n, line in enumerate(lines[1:], start=2))
    _check_order(path, header, entries)
    return AttemptJournal(path, header, entries)


def _check_order(path: Path, header: Header, entries: Iterable[Entry]) -> None:
    charged, step = header.charged, 0
    for number, entry in enumerate(entries, start=2):
        if not entry.from_draw <= charged <= entry.to_draw or entry.from_draw == entry.to_draw:
            raise _unreadable(path, number, f"the lease does not follow draw {charged}: {entry}")
        if entry.from_step < step:
            raise _unreadable(path, number, f"steps run backwards from {step}: {entry}")
        charged, step = entry.to_draw, entry.from_step


def _line(record: Header | Entry) -> bytes:
    return json.dumps(asdict(record), separators=(",", ":")).encode() + b"\n"


def _parsed(path: Path, number: int, line: bytes, kind: type[_Record]) -> _Record:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, number, f"not JSON: {error}") from error
    wanted = kind.__annotations__
    if not isinstance(fields, dict) or fields.keys() != wanted.keys():
        raise _unreadable(path, number, f"not exactly the fields {', '.join(wanted)}")
    for name, value in fields.items():
        if wanted[name] == "str":
            ok = isinstance(value, str)
        else:
            ok = type(value) is int and 0 <= value <= _BOUNDS[name]
        if not ok:
            raise _unreadable(path, number, f"{name} is {value!r}")
    return kind(**fields)


def _unreadable(path: Path, number: int, why: str) -> JournalUnreadable:
    return JournalUnreadable(path, f"{path}, line {number}: {why}")
