"""Who is there, who is lost, and which end explains the others; the caller's clock."""

from __future__ import annotations

from typing import Any

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import Action, End, EndKind, Hello
from dtjob_trainer.gang.members import MISSED_PINGS, PING_SECONDS, AwakeClock, Gang
from dtjob_trainer.identity.proof import LEEWAY_SECONDS, HelloDenied, Speaker

_SILENT = MISSED_PINGS * PING_SECONDS


def hello(position: int, incarnation: str = "first", **fields: Any) -> Hello:
    return Hello(position=position, incarnation=incarnation, ready=True, **fields)


def met() -> Gang:
    """Two workers that sent a hello at time 0."""
    gang = Gang()
    for position in (0, 1):
        gang.hello(hello(position), 0.0)
    return gang


def test_a_gang_that_answers_is_not_lost() -> None:
    gang = met()
    assert gang.absent(2, _SILENT) == []
    assert gang.lost(gang.incarnations(2), _SILENT) is None


def test_a_worker_that_came_back_as_another_process_has_lost_its_ranks() -> None:
    gang = met()
    started = gang.incarnations(2)
    gang.hello(hello(1, "second"), 1.0)
    end = gang.lost(started, 1.0)
    assert end is not None
    assert (end.reason, end.message) == (Reason.WORKER_LOST, "worker 1 was restarted")
    assert gang.lost(gang.incarnations(2), 1.0) is None


def test_a_worker_that_falls_silent_is_lost() -> None:
    gang = met()
    gang.hello(hello(0), 5.0)
    end = gang.lost(gang.incarnations(2), _SILENT + 0.1)
    assert end is not None
    assert end.message == "worker 1 stopped answering"
    assert gang.absent(2, _SILENT + 0.1) == [1]


def test_time_in_which_the_leader_did_not_run_makes_nobody_silent() -> None:
    """Hellos that came while the machine stood still are read after the timers that ran out."""
    gang, clock = met(), AwakeClock(100.0)
    started = gang.incarnations(2)
    assert gang.lost(started, clock.read(160.0)) is None
    assert gang.absent(2, clock.read(160.2)) == []


def test_a_worker_that_stays_silent_afterwards_is_lost() -> None:
    gang, clock = met(), AwakeClock(100.0)
    now = 160.0
    clock.read(now)
    while (end := gang.lost({1: "first"}, clock.read(now))) is None:
        now += PING_SECONDS / 4
    assert now <= 160 + _SILENT
    assert end.message == "worker 1 stopped answering"


@pytest.mark.parametrize("fields", [{"ready": False}, {"attempt": 1}])
def test_an_attempt_waits_for_workers_that_are_free(fields: dict[str, Any]) -> None:
    gang = met()
    gang.hello(hello(1).model_copy(update=fields), 0.0)
    assert gang.absent(2, 0.0) == [1]
    assert gang.absent(3, 0.0) == [1, 2]


def test_what_a_worker_outside_the_attempt_says_of_it_does_not_count() -> None:
    """One that has left a larger run, say: nobody waits for it, nor does its word end anything."""
    gang = met()
    end = End(kind=EndKind.FAILED, rank=1, reason=Reason.TASK_FAILED)
    gang.hello(hello(1, attempt=7, ends=(end,)), 0.0)
    assert (gang.ends(7, 2), gang.running(7, 2)) == ([end], [1])
    assert (gang.ends(7, 1), gang.running(7, 1)) == ([], [])


def admitted(
    gang: Gang, pod: str, incarnation: str = "first", *, position: int = 1, issued: int = 0
) -> bool:
    try:
        gang.admit(hello(position, incarnation), Speaker(position, pod, issued), 2)
    except HelloDenied:
        return False
    return True


def test_a_pod_that_was_replaced_is_never_admitted_again() -> None:
    """Cut off from its API server, it keeps a token that holds."""
    gang = Gang()
    assert admitted(gang, "old")
    assert admitted(gang, "new")
    assert not admitted(gang, "old")
    assert not admitted(gang, "old", "another process of it")
    assert admitted(gang, "new")
    assert admitted(gang, "newest")
    assert not admitted(gang, "new")
    assert not admitted(gang, "old")


_EVICTED = 1000
"""When the last token of the old pod was made."""
_AFTER = _EVICTED + LEEWAY_SECONDS + 1
"""When the first one of its successor was."""


def test_a_new_coordinator_takes_no_old_pod_for_a_new_one() -> None:
    """It has seen neither: which of them came first shows nothing."""
    gang = Gang()
    assert admitted(gang, "new", issued=_AFTER)
    assert not admitted(gang, "old", issued=_EVICTED)
    assert admitted(gang, "new", issued=_AFTER)


def test_the_successor_takes_the_place_of_an_old_pod_that_came_before_it() -> None:
    gang = Gang()
    assert admitted(gang, "old", issued=_EVICTED)
    assert admitted(gang, "new", issued=_AFTER)
    assert not admitted(gang, "old", issued=_EVICTED)


def test_a_pod_is_as_new_as_its_newest_token() -> None:
    """Its kubelet replaces the token, and a hello with the one before may come late."""
    gang = Gang()
    assert admitted(gang, "new", issued=_EVICTED)
    assert admitted(gang, "new", issued=_AFTER)
    assert admitted(gang, "new", issued=_EVICTED)
    assert not admitted(gang, "old", issued=_EVICTED)


def test_times_that_clocks_may_have_wrong_decide_nothing() -> None:
    """Else the successor would have to wait for minutes for another token."""
    gang = Gang()
    assert admitted(gang, "old", issued=_EVICTED)
    assert admitted(gang, "new", issued=_EVICTED - LEEWAY_SECONDS)
    assert not admitted(gang, "old", issued=_EVICTED)


def test_a_pod_that_was_taken_for_the_old_one_comes_back_with_its_next_token() -> None:
    gang = Gang()
    assert admitted(gang, "new", issued=_EVICTED + LEEWAY_SECONDS)
    assert admitted(gang, "old", issued=_EVICTED)
    assert not admitted(gang, "new", issued=_EVICTED + LEEWAY_SECONDS)
    assert admitted(gang, "new", issued=_AFTER)
    assert not admitted(gang, "old", issued=_EVICTED)


def test_a_process_that_was_replaced_is_never_admitted_again() -> None:
    gang = Gang()
    assert admitted(gang, "pod", "first")
    assert admitted(gang, "pod", "second")
    assert not admitted(gang, "pod", "first")
    assert admitted(gang, "pod", "second")
    assert admitted(gang, "another pod", "first")


def test_processes_without_number_fill_no_memory() -> None:
    """Whoever has a token can name as many as it likes."""
    gang = Gang()
    for number in range(5000):
        assert admitted(gang, "pod", str(number))
    assert not admitted(gang, "pod", "4998")
    assert len(gang._seats[1]._replaced) == 1000


@pytest.mark.parametrize("position", [-1, 2, 10**9])
def test_a_run_has_no_worker_of_such_a_number(position: int) -> None:
    gang = Gang()
    assert not admitted(gang, "pod", position=position)
    assert gang._seats == {}


def test_a_worker_that_is_to_leave_is_listened_to_until_its_end() -> None:
    """A run with fewer workers begins when the ranks of the last one have ended."""
    gang = Gang()
    gang.admit(hello(2), Speaker(2, "pod"), 3)
    assert admitted(gang, "pod", position=2)
    assert not admitted(gang, "pod", position=3)


def test_the_key_to_the_store_is_in_no_repr() -> None:
    gang = Gang()
    gang.direct(Action.RUN, attempt=1, workers=2, store_key="secret")
    assert "secret" not in repr(gang.directive)
    assert "secret" in gang.directive.model_dump_json()
    gang.direct(Action.END, attempt=1)
    assert gang.directive.store_key == ""


def test_only_workers_of_the_run_are_asked_whether_they_leave() -> None:
    gang = met()
    gang.hello(hello(1, drain=True), 1.0)
    assert gang.wants_drain(2)
    assert not gang.wants_drain(1)
