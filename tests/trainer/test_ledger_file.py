"""The ledger in a folder: compare-and-swap by link, the same rules as the API server's."""

from __future__ import annotations

import errno
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dtjob_api.ledger import (
    AttemptRecord,
    CheckpointRecord,
    Lease,
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
    RunState,
    Segment,
    VolumeRecord,
)
from dtjob_api.reasons import Reason
from dtjob_api.validation import validate
from dtjob_trainer import durable
from dtjob_trainer.ledger import AnswerLost, Conflict, LedgerRejected, LedgerUnreadable
from dtjob_trainer.ledger_file import FileLedger
from dtjob_trainer.ledger_rules import check_transition
from testing.examples import examples
from tests.support.builders import IMAGE, START, UID, checkpoint, new_ledger, spent, tiny_plan
from tests.support.rules.ledger_attacks import (
    LEDGER_CHANGES,
    SERIES,
    full,
    next_attempt,
    with_attempts,
)
from tests.support.rules.transitions import Json, Transition, edited


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


def test_what_was_written_is_read(ledger: FileLedger) -> None:
    versioned = ledger.read()
    written = ledger.replace_status(versioned, LedgerStatus(attempt=1))
    assert ledger.read() == written
    assert (versioned.version, written.version) == ("1", "2")


def test_second_writer_of_a_version_is_refused(ledger: FileLedger) -> None:
    seen = ledger.read()
    ledger.replace_status(seen, LedgerStatus(attempt=1))
    with pytest.raises(Conflict):
        ledger.replace_status(seen, LedgerStatus(attempt=1, **spent(1)))
    with pytest.raises(Conflict):
        ledger.replace_spec(seen, seen.ledger.spec.model_copy(update={"reserved_draws": 1}))
    assert ledger.read().ledger.status.attempt == 1


def test_writer_that_slept_through_many_versions_is_refused(ledger: FileLedger) -> None:
    """Rule 10: versions are never pruned, so an old number stays taken."""
    seen = ledger.read()
    for charged in range(1, 8):
        charge(ledger, charged)
    with pytest.raises(Conflict):
        ledger.replace_status(seen, LedgerStatus(attempt=1, **spent(9)))


def test_of_many_writers_each_version_has_one(ledger: FileLedger) -> None:
    """Rule 2: attempt numbers by compare-and-swap, from threads that race."""
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


def test_ledger_is_created_once(ledger: FileLedger) -> None:
    """Rule 11: never reset."""
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


def test_ledger_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Rule 11: a resume without a readable ledger is refused, never reset."""
    with pytest.raises(LedgerUnreadable, match=r"ledger folder .* can't be read: No such file"):
        FileLedger(tmp_path / "none").read()
    with pytest.raises(LedgerUnreadable, match="there is no ledger in"):
        FileLedger(tmp_path).read()


def test_truncated_newest_version_is_refused(ledger: FileLedger) -> None:
    """Rule 11: never an older version in its place: that would give draws out again."""
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


def test_version_that_contradicts_the_one_before_is_refused(ledger: FileLedger) -> None:
    """Rule 11: a version rolled back by hand."""
    charge(ledger, 3)
    charge(ledger, 5)
    newest(ledger).write_bytes((ledger.path / "0000000001.json").read_bytes())
    with pytest.raises(LedgerUnreadable, match=r"charged never decreases \(3 to 0\)"):
        ledger.read()


def test_version_removed_from_the_middle_is_refused(ledger: FileLedger) -> None:
    for charged in (1, 2, 3):
        charge(ledger, charged)
    (ledger.path / "0000000002.json").unlink()
    with pytest.raises(LedgerUnreadable, match=r"0000000002\.json is missing"):
        ledger.read()


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


def made(model: type, **fields: Any) -> Any:
    """`st.builds` without its guesses at fields that have aliases."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


BASE = new_ledger(tiny_plan())
small = st.integers(0, 7)
maybe = st.none() | small
leases = made(
    Lease,
    attempt=st.integers(1, 4),
    from_draw=small,
    to_draw=small,
    from_step=st.just(2),
    closed_at=maybe,
)
checkpoints = made(
    CheckpointRecord,
    step=small,
    charged=small,
    attempt=st.integers(1, 4),
    path=st.just("a"),
    sha256=st.just("0" * 64),
    time=st.just(START),
)
volumes = made(VolumeRecord, attempt=st.integers(1, 4), leased=st.integers(0, 4), charged=small)
outcomes = st.builds(
    outcome, st.sampled_from(OutcomeState), result=st.sampled_from([None, {"step": 1}])
)
segments = st.lists(
    made(
        Segment,
        draws=small,
        image=st.just(IMAGE),
        noise_multiplier=st.sampled_from([2.0, 2.0, 3.0, None]),
        sample_rate=st.sampled_from([0.25, 0.25, 0.1, None]),
    ),
    max_size=2,
)
status_changes = st.fixed_dictionaries(
    {},
    optional={
        "attempt": st.integers(0, 4),
        "charged": small,
        "lease": st.none() | leases,
        "segments": segments,
        "checkpoint": st.none() | checkpoints,
        "drained": st.none() | st.integers(0, 3),
        "restored": st.none() | st.integers(1, 3),
        "outcome": st.none() | outcomes,
        "volume": st.none() | volumes,
    },
)
stored = st.sampled_from(
    [
        LedgerStatus(),
        LedgerStatus(attempt=1),
        started(),
        started(lease=Lease(attempt=2, from_draw=2, to_draw=4, from_step=2, closed_at=3)),
        started(attempt=3),
        started(charged=5),
        started(
            lease=Lease(attempt=2, from_draw=2, to_draw=4, from_step=2, closed_at=3), restored=2
        ),
        started(outcome=outcome(result={"step": 1})),
        started(volume=VolumeRecord(attempt=3, leased=3, charged=6)),
        started(volume=VolumeRecord(attempt=2, leased=1, charged=4)),
        started(drained=None, segments=[]),
    ]
)
next_leases = st.builds(
    lambda draw, length, extra: {
        **spent(draw + length + extra),
        "lease": Lease(attempt=2, from_draw=draw, to_draw=draw + length, from_step=2),
    },
    st.integers(2, 5),
    st.integers(0, 3),
    st.integers(-1, 1),
)


def verdicts(old: PrivacyLedger, new: PrivacyLedger) -> tuple[bool, bool]:
    by_rules = not check_transition(old, new)
    by_cel = not validate(new.to_dict(), old=old.to_dict())
    return by_rules, by_cel


@settings(max_examples=examples(150), derandomize=True)
@given(status=stored, changes=status_changes | next_leases)
def test_status_rules_are_those_of_the_api_server(
    status: LedgerStatus, changes: dict[str, Any]
) -> None:
    """Rules 10 and 11 at the file as at the API server, on writes nobody thought of."""
    old = BASE.model_copy(update={"status": status})
    new = BASE.model_copy(update={"status": status.model_copy(update=changes)})
    by_rules, by_cel = verdicts(old, new)
    assert by_rules == by_cel


def refused_by_the_file(stored: Json, changed: Json) -> bool:
    """Whether no writer of the file can make the one of the other."""
    try:
        new = PrivacyLedger.from_dict(changed)
    except ValidationError:
        return True
    return bool(check_transition(PrivacyLedger.from_dict(stored), new))


@pytest.mark.parametrize(
    # A file has a status from the beginning.
    "change",
    [change for change in LEDGER_CHANGES if "status" in change.stored],
    ids=lambda change: change.name,
)
def test_the_file_refuses_what_the_api_server_refuses(change: Transition) -> None:
    assert refused_by_the_file(change.stored, change.changed) == bool(change.refused)


@pytest.mark.parametrize("attack", SERIES)
def test_an_attack_of_several_writes_gets_through_none_of_them(attack: str) -> None:
    stored, writes = SERIES[attack]
    assert all(refused_by_the_file(stored, edited(stored, changes)) for changes in writes)


@st.composite
def lists_and_writes(draw: st.DrawFn) -> tuple[Json, Json]:
    """A ledger with a list of attempts, and a write that may lose, mend or add entries."""
    orderly = draw(st.sets(st.integers(1, 20), max_size=3))
    records = full(*orderly)[draw(st.sampled_from([0, 0, 1, 17])) :]
    stored = with_attempts(records)
    leaving = draw(st.lists(st.integers(1, 20), max_size=2)) + sorted(orderly)[:1]
    written = next_attempt(records, *draw(st.sampled_from([leaving, leaving[:1], leaving[-1:]])))
    attempts = written["attempts"]
    match draw(st.sampled_from(["", "", "", "reorder", "rewrite", "reopen", "no rise", "twice"])):
        case "reorder":
            attempts = draw(st.permutations(attempts))
        case "rewrite":
            attempts[0] = attempts[0] | {"reason": "Stopped"}
        case "reopen":
            attempts[0] = {k: v for k, v in attempts[0].items() if k != "end"}
        case "no rise":
            written["attempt"] -= 1
        case "twice":
            attempts = [*attempts[1:], attempts[-1]]
    changes = {"status.attempts": attempts, "status.attempt": written["attempt"]}
    return stored, edited(stored, changes)


@settings(max_examples=examples(150), derandomize=True)
@given(change=lists_and_writes())
def test_the_list_of_attempts_is_guarded_alike(change: tuple[Json, Json]) -> None:
    """By the file as by the API server, on writes nobody thought of."""
    stored, changed = change
    assert refused_by_the_file(stored, changed) == bool(validate(changed, old=stored))


RUN = BASE.spec.run
SPEC_WRITES: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, True),
    "settled": ({"reserved_draws": 4}, True),
    "below what is charged": ({"reserved_draws": 3}, False),
    "reserve raised": ({"reserved_draws": 10}, False),
    "other job": ({"job_uid": "other"}, False),
    "other name": ({"job_name": "other"}, False),
    "other pods": ({"stateful_set": "other"}, False),
    "less noise": ({"plan": tiny_plan(noise_multiplier=1.0)}, False),
    "more steps": ({"plan": tiny_plan(steps=6)}, False),
    "no noise": ({"plan": tiny_plan(noise_multiplier=None)}, False),
    "drain": ({"run": RUN.model_copy(update={"state": RunState.DRAIN})}, True),
    "generation": ({"run": RUN.model_copy(update={"generation": 3, "workers": 2})}, True),
    "generation back": ({"run": RUN.model_copy(update={"generation": 1})}, False),
    "workers": ({"run": RUN.model_copy(update={"workers": 2})}, False),
}


@pytest.mark.parametrize("name", SPEC_WRITES)
def test_spec_rules_are_those_of_the_api_server(name: str) -> None:
    """Rules 9 and 17: the plan never changes, a settled ledger is closed."""
    changes, allowed = SPEC_WRITES[name]
    run = RUN.model_copy(update={"generation": 2})
    spec = BASE.spec.model_copy(update={"run": run})
    if "run" in changes and name not in {"generation", "generation back"}:
        changes = {"run": changes["run"].model_copy(update={"generation": 2})}
    old = BASE.model_copy(update={"spec": spec, "status": started()})
    new = old.model_copy(update={"spec": spec.model_copy(update=changes)})
    assert verdicts(old, new) == (allowed, allowed)


STATUS_ATTACKS: dict[str, dict[str, Any]] = {
    "charged lowered": spent(3),
    "charged over reserved": spent(10),
    "charged without segments": {"segments": spent(3)["segments"]},
    "segments of more noise": {
        "segments": [Segment(noise_multiplier=9.0, sample_rate=0.25, draws=4, image=IMAGE)]
    },
    "attempt lowered": {"attempt": 1},
    "lease removed": {"lease": None},
    "checkpoint removed": {"checkpoint": None},
    "segments removed": {"segments": []},
    "drained removed": {"drained": None},
    "drained ahead": {"drained": 2},
    "draw leased twice": {
        **spent(6),
        "lease": Lease(attempt=2, from_draw=3, to_draw=6, from_step=2),
    },
    "lease of a stale attempt": {
        **spent(6),
        "lease": Lease(attempt=1, from_draw=4, to_draw=6, from_step=2),
    },
    "lease beyond what is charged": {
        "lease": Lease(attempt=2, from_draw=4, to_draw=6, from_step=2)
    },
}


@pytest.mark.parametrize("attack", STATUS_ATTACKS)
def test_attack_on_the_status_is_refused_by_both(attack: str) -> None:
    """Rules 10, 11 and 17, one named attack each."""
    old = BASE.model_copy(update={"status": started()})
    new = BASE.model_copy(update={"status": started(**STATUS_ATTACKS[attack])})
    assert verdicts(old, new) == (False, False)


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
