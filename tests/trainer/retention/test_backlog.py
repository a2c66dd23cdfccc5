"""What waits in a worker for the coordinator: in order, bounded, and counted where it is lost."""

from __future__ import annotations

from dtjob_trainer.retention.backlog import PART_BYTES, Backlog
from dtjob_trainer.retention.log_budget import LogKey

FIRST, SECOND = LogKey(1, 2), LogKey(1, 3)


def taken(backlog: Backlog) -> list[tuple[int, int, int, bytes]]:
    """Rank, number, dropped bytes and data of all parts."""
    found = []
    while (part := backlog.part()) is not None:
        found.append((part.rank, part.number, part.dropped, part.data))
        backlog.taken()
    return found


def test_a_part_is_the_same_until_it_is_taken() -> None:
    backlog = Backlog(position=1)
    backlog.put(FIRST, b"a\n")
    first = backlog.part()
    backlog.put(FIRST, b"b\n")
    assert backlog.part() is first
    assert taken(backlog) == [(2, 0, 0, b"a\n"), (2, 1, 0, b"b\n")]


def test_ranks_take_turns_and_parts_are_no_longer_than_a_request_may_be() -> None:
    backlog = Backlog(position=1)
    backlog.put(FIRST, b"x" * (PART_BYTES + 5))
    backlog.put(SECOND, b"y")
    assert [(rank, number, len(data)) for rank, number, _, data in taken(backlog)] == [
        (2, 0, PART_BYTES),
        (3, 0, 1),
        (2, 1, 5),
    ]


def test_whoever_has_most_loses_its_oldest_and_the_next_part_says_how_much() -> None:
    backlog = Backlog(position=1, limit=10)
    backlog.put(SECOND, b"yy")
    for letter in (b"aaaa", b"bbbb", b"cccc"):
        backlog.put(FIRST, letter)
    assert taken(backlog) == [(3, 0, 0, b"yy"), (2, 0, 4, b"bbbbcccc")]


def test_more_than_all_the_room_is_dropped_and_counted_with_what_comes_next() -> None:
    backlog = Backlog(position=1, limit=10)
    backlog.put(FIRST, b"x" * 11)
    assert taken(backlog) == []
    backlog.put(FIRST, b"end")
    assert taken(backlog) == [(2, 0, 11, b"end")]
