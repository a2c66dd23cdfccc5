"""What a process died of, by its signal and by what its memory group counted."""

from __future__ import annotations

import signal

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_trainer.process.memory_group import MemoryCount
from dtjob_trainer.worker import deaths

GIB = 2**30
BEFORE = MemoryCount(kills=1, at_limit=5, limit=2 * GIB)


def test_a_kill_at_the_containers_limit_names_it_and_the_remedies() -> None:
    end = deaths.end_of_rank(3, -9, BEFORE, MemoryCount(kills=2, at_limit=9, limit=2 * GIB))

    assert (end.kind, end.reason) == (EndKind.CRASHED, Reason.OUT_OF_MEMORY)
    assert (end.rank, end.signal) == (3, 9)
    for words in (
        "rank 3 was ended by SIGKILL",
        "out of memory",
        "2 GiB",
        "spec.workers.resources.limits.memory",
        "spec.training.physicalBatchSize",
    ):
        assert words in end.message


@pytest.mark.parametrize(
    "after",
    [
        MemoryCount(kills=2, at_limit=5, limit=2 * GIB),
        MemoryCount(kills=2, at_limit=9, limit=None),
    ],
)
def test_a_kill_below_the_limit_is_the_machines(after: MemoryCount) -> None:
    reason, why = deaths.cause(9, BEFORE, after)

    assert reason is Reason.OUT_OF_MEMORY
    assert "the machine has none left" in why
    assert "GiB" not in why


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, BEFORE),
        (BEFORE, MemoryCount(kills=1, at_limit=900, limit=2 * GIB)),
        (None, None),
        (None, BEFORE),
        (BEFORE, None),
    ],
)
def test_a_kill_that_no_group_counted_is_somebody_elses(
    before: MemoryCount | None, after: MemoryCount | None
) -> None:
    reason, why = deaths.cause(9, before, after)

    assert reason is Reason.RANK_FAILED
    assert "kill -9" in why


def counted(kills: int, at_limit: int = 0) -> MemoryCount:
    return MemoryCount(kills=kills, at_limit=at_limit, limit=2 * GIB)


def watched(processes: int, kills: int = 0) -> deaths.MemoryKills:
    found = deaths.MemoryKills()
    for process in range(processes):
        found.started(process, counted(kills))
    return found


def test_processes_that_are_killed_at_once_are_all_explained() -> None:
    found = watched(2)
    for process in range(2):
        assert "limit is 2 GiB" in found.cause(process, 9, counted(2, at_limit=1))


def test_one_kill_explains_one_death() -> None:
    found = watched(3)
    assert "out of memory" in found.cause(1, 9, counted(1))
    assert "kill -9" in found.cause(0, 9, counted(1))
    assert "out of memory" in found.cause(2, 9, counted(2))


def test_a_kill_explains_no_death_of_a_process_that_was_started_after_it() -> None:
    """Nor does it hide a kill of that process that is reported only now."""
    found = watched(2)
    found.started(2, counted(1))
    assert "out of memory" in found.cause(0, 9, counted(1))
    assert "out of memory" in found.cause(2, 9, counted(2))
    found.started(2, counted(2))
    assert "kill -9" in found.cause(2, 9, counted(2))


def test_what_somebody_else_has_explained_explains_nothing_more() -> None:
    found = watched(2)
    found.explained(counted(1))
    assert "kill -9" in found.cause(0, 9, counted(1))
    assert "out of memory" in found.cause(1, 9, counted(2))


def test_where_nothing_counts_a_kill_is_anybodys() -> None:
    found = deaths.MemoryKills()
    found.started(0, None)
    assert "kill -9" in found.cause(0, 9, None)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGBUS, "/dev/shm"),
        (signal.SIGSEGV, "native code"),
        (signal.SIGABRT, "worker's log"),
        (signal.SIGILL, "processor"),
        (signal.SIGTERM, "somebody asked"),
        (64, "somebody asked"),
    ],
)
def test_other_signals_have_causes_of_their_own_whatever_memory_did(
    number: int, words: str
) -> None:
    after = MemoryCount(kills=2, at_limit=9, limit=2 * GIB)
    end = deaths.end_of_rank(0, -number, BEFORE, after)

    assert end.reason is Reason.RANK_FAILED
    assert words in end.message


def test_an_exit_code_without_a_word_is_described() -> None:
    end = deaths.end_of_rank(0, 7, None, None)

    assert (end.exit_code, end.signal) == (7, None)
    assert "exited with code 7" in end.message


def test_a_rank_that_exits_without_a_word_has_failed() -> None:
    end = deaths.end_of_rank(3, 1, None, None)
    assert (end.kind, end.reason, end.exit_code) == (EndKind.CRASHED, Reason.RANK_FAILED, 1)
