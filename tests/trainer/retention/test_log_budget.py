"""How much of each rank's log is kept: shares, what goes first, and the bound of the whole job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtjob_trainer.retention.log_budget import MARK_BYTES, Decision, LogKey, decide


def test_what_fits_is_kept_whole() -> None:
    sizes = {LogKey(1, 0): 100, LogKey(1, 1): 400}
    assert decide(sizes, LogKey(1, 0), 300, limit=1000, ranks=2) == Decision(takes=300)


def test_a_log_that_has_used_up_its_share_loses_its_beginning_and_nobody_elses() -> None:
    sizes = {LogKey(1, 0): 4900, LogKey(1, 1): 10}
    decided = decide(sizes, LogKey(1, 0), 200, limit=10_000, ranks=2)
    assert decided == Decision(takes=200, keeps=2500 - 200 - MARK_BYTES)


def test_earlier_attempts_go_first_the_oldest_before_the_others() -> None:
    sizes = {LogKey(1, 0): 300, LogKey(2, 0): 300, LogKey(3, 0): 300, LogKey(4, 0): 50}
    decided = decide(sizes, LogKey(4, 0), 500, limit=1000, ranks=1)
    assert decided == Decision(takes=500, removes=(1, 2))


def test_a_late_word_of_an_earlier_attempt_takes_nothing_from_a_later_one() -> None:
    sizes = {LogKey(1, 0): 300, LogKey(2, 0): 700}
    assert decide(sizes, LogKey(1, 0), 1, limit=1000, ranks=1) == Decision(takes=0)


SIZE = st.integers(0, 3000)
GROWTH = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 7), SIZE), max_size=40)


@given(grown=GROWTH, limit=st.integers(8 * MARK_BYTES, 20_000))
def test_whatever_is_printed_the_bound_and_the_shares_hold(
    grown: list[tuple[int, int, int]], limit: int
) -> None:
    sizes: dict[LogKey, int] = {}
    for attempt, rank, size in grown:
        key = LogKey(attempt, rank)
        decided = decide(sizes, key, size, limit=limit, ranks=8)
        sizes = {at: held for at, held in sizes.items() if at.attempt not in decided.removes}
        assert all(removed < attempt for removed in decided.removes)
        if decided.takes:
            held = sizes.get(key, 0)
            if decided.keeps is not None:
                held = min(held, decided.keeps) + MARK_BYTES
            sizes[key] = held + decided.takes
        assert sum(sizes.values()) <= limit
        assert all(held <= limit // 8 for held in sizes.values())
