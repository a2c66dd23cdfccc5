"""Which end explains an attempt, and when enough are known; the caller's clock."""

from __future__ import annotations

import itertools

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End, EndKind
from dtjob_trainer.gang.ends import Hearing, bounded, cause


def end(kind: EndKind, rank: int, signal: int | None = None) -> End:
    return End(kind=kind, rank=rank, reason=Reason.RANK_FAILED, signal=signal)


LOST_PEER = end(EndKind.CRASHED, 0)
KILLED = end(EndKind.CRASHED, 1, signal=9)
HELD = end(EndKind.HELD, 2)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([LOST_PEER, KILLED], KILLED),
        ([KILLED, LOST_PEER], KILLED),
        ([LOST_PEER, KILLED, HELD], HELD),
        ([LOST_PEER], LOST_PEER),
        ([end(EndKind.FINISHED, 0)], None),
        ([], None),
    ],
    ids=["killed second", "killed first", "verdict", "one crash", "nothing wrong", "none"],
)
def test_a_consequence_is_not_taken_for_the_cause(ends: list[End], expected: End | None) -> None:
    """A rank whose peer was killed loses its connection, and may say so first."""
    assert cause(ends) == expected


REPORTED = [
    one.model_copy(update={"message": f"rank {one.rank} of {one.kind}"})
    for one in (LOST_PEER, KILLED, HELD, end(EndKind.FINISHED, 3), end(EndKind.FAILED, 4))
]


@pytest.mark.parametrize("worker", list(itertools.permutations(REPORTED, 2)))
def test_a_worker_tells_the_words_that_can_become_those_of_the_attempt(
    worker: tuple[End, ...],
) -> None:
    """Whatever the others tell before and after it."""
    words = bounded(worker)
    assert [one.rank for one in words] == [one.rank for one in worker]
    assert sum(bool(one.message) for one in words) == 1
    others = [one for one in REPORTED if one not in worker]
    for before, after in (([], others), (others, []), (others[:1], others[1:])):
        assert cause([*before, *words, *after]) == cause([*before, *worker, *after])


LOST = End(kind=EndKind.CRASHED, rank=None, reason=Reason.WORKER_LOST)


@pytest.mark.parametrize(
    ("ends", "lost", "decides"),
    [
        ([], LOST, LOST),
        ([KILLED], None, KILLED),
        ([LOST_PEER], LOST, LOST),
        ([LOST_PEER, end(EndKind.FINISHED, 1), HELD], None, HELD),
    ],
    ids=["a lost worker", "a killed rank", "a lost worker explains a lost peer", "all reported"],
)
def test_some_ends_decide_at_once(ends: list[End], lost: End | None, decides: End) -> None:
    assert Hearing(3).decide(ends, lost, 0.0) == decides


@pytest.mark.parametrize(
    ("first", "seconds"),
    [(LOST_PEER, 5), (HELD, 1), (end(EndKind.DRAINED, 0), 10), (end(EndKind.SUCCEEDED, 0), 10)],
    ids=["echo", "verdict", "drained", "succeeded"],
)
def test_others_wait_for_the_rest_to_be_reported(first: End, seconds: float) -> None:
    hearing = Hearing(3)
    assert hearing.decide([], None, 50.0) is None
    assert hearing.deadline is None
    assert hearing.decide([first], None, 100.0) is None
    assert hearing.decide([first], None, 99.9 + seconds) is None
    assert hearing.decide([first], None, 100.0 + seconds) == first
