"""The ledger in a folder: compare-and-swap by link, the same rules as the API server's."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    Lease,
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
)
from dtjob_api.reasons import Reason
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.backend import AnswerLost, Conflict, LedgerRejected, LedgerUnreadable
from dtjob_trainer.ledger.file_ledger import FileLedger
from tests.support.builders import START, UID, checkpoint, new_ledger, spent, tiny_plan
from tests.support.rules.ledger_attacks import BAD_LEDGERS, LEDGER_CHANGES, SERIES
from tests.support.rules.manifest_cases import Case
from tests.support.rules.stored_ledgers import LEDGER, STARTED
from tests.support.rules.transitions import Json, edited


@pytest.fixture
def ledger(tmp_path: Path) -> FileLedger:
    made = FileLedger(tmp_path / "run" / "ledger")
    made.create(new_ledger(tiny_plan()))
    return made


def charge(ledger: FileLedger, charged: int) -> None:
    versioned = ledger.read()
    ledger.replace_status(versioned, versioned.ledger.status.model_copy(update=spent(charged)))


def newest(ledger: FileLedger) -> Path:
    return max(ledger.path.glob("*.json"))


# Compare-and-swap


@pytest.mark.rule(11)
def test_what_was_written_is_read(ledger: FileLedger) -> None:
    versioned = ledger.read()
    written = ledger.replace_status(versioned, LedgerStatus(attempt=1))
    assert ledger.read() == written
    assert (versioned.version, written.version) == ("1", "2")


@pytest.mark.rule(10)
def test_second_writer_of_a_version_is_refused(ledger: FileLedger) -> None:
    seen = ledger.read()
    ledger.replace_status(seen, LedgerStatus(attempt=1))
    with pytest.raises(Conflict):
        ledger.replace_status(seen, LedgerStatus(attempt=1, **spent(1)))
    with pytest.raises(Conflict):
        ledger.replace_spec(seen, seen.ledger.spec.model_copy(update={"reserved_draws": 1}))
    assert ledger.read().ledger.status.attempt == 1


@pytest.mark.rule(10)
def test_writer_that_slept_through_many_versions_is_refused(ledger: FileLedger) -> None:
    """Versions are never pruned, so an old number stays taken."""
    seen = ledger.read()
    for charged in range(1, 8):
        charge(ledger, charged)
    with pytest.raises(Conflict):
        ledger.replace_status(seen, LedgerStatus(attempt=1, **spent(9)))


@pytest.mark.rule(2)
def test_of_many_writers_each_version_has_one(ledger: FileLedger) -> None:
    """Attempt numbers by compare-and-swap, from threads that race."""
    won: list[int] = []

    def race() -> None:
        for _ in range(10):
            versioned = ledger.read()
            attempt = versioned.ledger.status.attempt + 1
            try:
                ledger.replace_status(versioned, LedgerStatus(attempt=attempt))
            except Conflict:
                continue
            won.append(attempt)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, len(won) + 1))
    assert ledger.read().ledger.status.attempt == len(won)


@pytest.mark.rule(11)
def test_ledger_is_created_once(ledger: FileLedger) -> None:
    """Never reset."""
    charge(ledger, 3)
    with pytest.raises(Conflict):
        ledger.create(new_ledger(tiny_plan()))
    assert ledger.read().ledger.status.charged == 3


def test_wait_returns_the_next_version_and_times_out_without_one(ledger: FileLedger) -> None:
    assert ledger.wait("1", timeout=0.05) is None
    writer = threading.Timer(0.2, charge, (ledger, 1))
    writer.start()
    before = time.monotonic()
    versioned = ledger.wait("1", timeout=120)
    writer.join()
    assert versioned is not None
    assert versioned.ledger.status.charged == 1
    assert time.monotonic() - before < 100


def test_wait_does_not_list_the_folder(ledger: FileLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of weeks has tens of thousands of versions, and is looked at ten times a second."""

    def listed(_: Path) -> Any:
        raise AssertionError("listed")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", listed)
        assert ledger.wait("1", timeout=0.25) is None
    for charged in (1, 2):
        charge(ledger, charged)
    newest = ledger.wait("1", timeout=0)
    assert newest is not None
    assert newest.ledger.status.charged == 2


def test_wait_notices_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreadable, match="can't be read"):
        FileLedger(tmp_path / "none").wait("1", timeout=0)


# Reading what can't be trusted


@pytest.mark.rule(11)
def test_ledger_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A resume without a readable ledger is refused, never reset."""
    with pytest.raises(LedgerUnreadable, match=r"ledger folder .* can't be read: No such file"):
        FileLedger(tmp_path / "none").read()
    with pytest.raises(LedgerUnreadable, match="there is no ledger in"):
        FileLedger(tmp_path).read()


@pytest.mark.rule(11)
def test_truncated_newest_version_is_refused(ledger: FileLedger) -> None:
    """Never an older version in its place: that would give draws out again."""
    charge(ledger, 3)
    file = newest(ledger)
    data = file.read_bytes()
    for size in range(0, len(data) - 1, 7):
        file.write_bytes(data[:size])
        with pytest.raises(LedgerUnreadable, match=r"0000000002\.json can't be read") as refused:
            ledger.read()
    assert "Put the file back from a copy" in str(refused.value)


def test_unknown_field_is_refused(ledger: FileLedger) -> None:
    text = newest(ledger).read_text()
    newest(ledger).write_text(text.replace('"attempt":0', '"attempts_made":0'))
    with pytest.raises(LedgerUnreadable, match="Extra inputs are not permitted"):
        ledger.read()


@pytest.mark.rule(11, 13)
def test_version_that_contradicts_the_one_before_is_refused(ledger: FileLedger) -> None:
    """A version rolled back by hand."""
    charge(ledger, 3)
    charge(ledger, 5)
    newest(ledger).write_bytes((ledger.path / "0000000001.json").read_bytes())
    with pytest.raises(
        LedgerUnreadable, match=r"charged never decreases: .* \(status\.charged from 3 to 0\)"
    ):
        ledger.read()


@pytest.mark.rule(11)
def test_version_removed_from_the_middle_is_refused(ledger: FileLedger) -> None:
    for charged in (1, 2, 3):
        charge(ledger, charged)
    (ledger.path / "0000000002.json").unlink()
    with pytest.raises(LedgerUnreadable, match=r"0000000002\.json is missing"):
        ledger.read()


@pytest.mark.rule(17)
def test_write_that_is_no_ledger_is_refused_before_it_is_published(ledger: FileLedger) -> None:
    for status in (
        LedgerStatus(attempt=1).model_copy(update={"charged": -1}),
        LedgerStatus(**spent(10)),  # nine are reserved
    ):
        with pytest.raises(LedgerRejected):
            ledger.replace_status(ledger.read(), status)
    assert ledger.read().version == "1"


def test_folder_that_can_not_be_written_says_so(ledger: FileLedger) -> None:
    versioned = ledger.read()
    moved = ledger.path.rename(ledger.path.with_name("moved"))
    with pytest.raises(LedgerRejected, match="can't be written: No such file"):
        ledger.replace_status(versioned, LedgerStatus(attempt=1))
    assert len(list(moved.iterdir())) == 1


@pytest.mark.timeout(10)
def test_a_version_that_is_a_queue_is_refused_and_not_waited_for(ledger: FileLedger) -> None:
    os.mkfifo(ledger.path / "0000000002.json")
    with pytest.raises(LedgerUnreadable, match=r"2\.json: it is no regular file"):
        ledger.read()


def test_a_version_that_cannot_be_looked_at_is_not_one_that_is_still_to_come(
    ledger: FileLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for who waits for it nor for who has just tried to write it."""
    newest = ledger.read()
    lstat, create = os.lstat, durable.create

    def failing(path: Path) -> os.stat_result:
        if Path(path).name == "0000000002.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(path)

    def torn(path: Path, data: bytes) -> None:
        create(path, data)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "lstat", failing)
    with pytest.raises(LedgerUnreadable, match="Input/output error"):
        ledger.wait(newest.version, timeout=0)
    monkeypatch.setattr(durable, "create", torn)
    with pytest.raises(AnswerLost, match="Input/output error"):
        ledger.replace_status(newest, LedgerStatus(attempt=1))


# The same rules as the API server's


def started(**changes: Any) -> LedgerStatus:
    fields: dict[str, Any] = {
        "attempt": 2,
        **spent(changes.get("charged", 4)),
        "lease": Lease(attempt=2, from_draw=2, to_draw=4, from_step=2),
        "checkpoint": checkpoint(2, 2, attempt=2),
        "drained": 1,
        "attempts": [AttemptRecord(attempt=2, start=START)],
    }
    return LedgerStatus(**(fields | changes))


def outcome(state: OutcomeState = OutcomeState.SUCCEEDED, **changes: Any) -> Outcome:
    return Outcome(state=state, reason=Reason.COMPLETED, time=START, **changes)


def written(folder: Path, *versions: Json) -> FileLedger:
    """A ledger of versions that somebody wrote by hand."""
    for number, version in enumerate(versions, 1):
        (folder / f"{number:010d}.json").write_text(json.dumps(version))
    return FileLedger(folder)


# A file has a status from the beginning.
CHANGES = {change.name: change for change in LEDGER_CHANGES if "status" in change.stored}


@pytest.mark.rule(10, 11)
@pytest.mark.parametrize("change", CHANGES)
def test_the_file_refuses_what_the_api_server_refuses(change: str, tmp_path: Path) -> None:
    """11 and 17."""
    stored, changed = CHANGES[change].stored, CHANGES[change].changed
    ledger = written(tmp_path, stored, changed)
    if CHANGES[change].refused:
        with pytest.raises(LedgerUnreadable):
            ledger.read()
    else:
        assert ledger.read().ledger == PrivacyLedger.from_dict(changed)


@pytest.mark.rule(10, 11)
@pytest.mark.parametrize("change", CHANGES)
def test_nobody_can_write_what_the_api_server_refuses(change: str, tmp_path: Path) -> None:
    """11 and 17."""
    ledger = written(tmp_path, CHANGES[change].stored)
    newest = ledger.read()
    try:
        changed = PrivacyLedger.from_dict(CHANGES[change].changed)
    except ValidationError:
        assert CHANGES[change].refused
        return
    refusal = pytest.raises(LedgerRejected) if CHANGES[change].refused else nullcontext()
    with refusal:
        if CHANGES[change].part == "spec":
            ledger.replace_spec(newest, changed.spec)
        else:
            ledger.replace_status(newest, changed.status)


@pytest.mark.parametrize("case", BAD_LEDGERS, ids=lambda case: case.name)
def test_no_file_begins_with_what_the_api_server_refuses(case: Case, tmp_path: Path) -> None:
    with pytest.raises(LedgerRejected):
        FileLedger(tmp_path / "ledger").create(PrivacyLedger.from_dict(case.manifest))


@pytest.mark.parametrize("attack", SERIES)
def test_an_attack_of_several_writes_gets_through_none_of_them(attack: str, tmp_path: Path) -> None:
    stored, writes = SERIES[attack]
    for changes in writes:
        with pytest.raises(LedgerUnreadable):
            written(tmp_path, stored, edited(stored, changes)).read()


def test_a_version_without_a_status_is_refused(tmp_path: Path) -> None:
    """The API server lets who restores a ledger write its first status as he has it."""
    with pytest.raises(LedgerUnreadable, match=r"0000000001\.json has no status. Nothing was"):
        written(tmp_path, LEDGER, STARTED).read()


def test_outcome_is_final(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    first = ledger.create(new_ledger(tiny_plan()))
    ended = ledger.replace_status(first, LedgerStatus(attempt=1, outcome=outcome()))
    for second in (None, outcome(OutcomeState.FAILED), outcome(message="again")):
        with pytest.raises(LedgerRejected, match="outcome is set once"):
            ledger.replace_status(ended, ended.ledger.status.model_copy(update={"outcome": second}))


def test_times_and_results_come_back_as_they_were(ledger: FileLedger) -> None:
    """A writer that compares what it reads with what it wrote relies on it."""
    precise = START + timedelta(microseconds=123456)
    status = started(
        drained=None,
        outcome=outcome(result={"accuracy": 0.1 + 0.2, "nested": {"a": [1, None]}}),
        attempts=[AttemptRecord(attempt=2, start=precise, end=precise)],
    )
    ledger.replace_status(ledger.read(), LedgerStatus(attempt=1))
    ledger.replace_status(ledger.read(), status)
    assert ledger.read().ledger.status == status
    assert ledger.read().ledger.spec.job_uid == UID
