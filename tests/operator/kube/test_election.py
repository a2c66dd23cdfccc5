"""Candidates before one Lease: whoever leads, nobody else does at that time."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from dtjob_operator.kube.api_errors import AlreadyExists, ApiError, Conflict, NotFound, Unavailable
from dtjob_operator.kube.election import DEADLINE_SECONDS, LEASE_SECONDS, Candidate, Superseded
from dtjob_operator.terms.kinds import Json, Kind


class Leases:
    """An API server with one Lease, and the time of one machine.

    Attributes
    ----------
    away
        Whether requests fail; "after" where writes take effect all the same.
    written
        When each write took effect.
    """

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.version = 0
        self.now = 1000.0
        self.away: bool | str = False
        self.written: list[float] = []

    def candidate(self, identity: str, ahead: float = 0.0) -> Candidate:
        client: Any = self
        return Candidate(client, "dtjob-system", identity, lambda: self.now + ahead)

    async def get(self, _kind: Kind, _namespace: str, name: str) -> Json:
        if self.away is True:
            raise Unavailable(0, "NoAnswer", "away")
        if self.lease is None:
            raise NotFound(404, "NotFound", name)
        return copy.deepcopy(self.lease)

    async def create(self, obj: Json) -> Json:
        if self.lease is not None and self.away is not True:
            raise AlreadyExists(409, "AlreadyExists", "there")
        return self._write(obj)

    async def replace(self, obj: Json) -> Json:
        if self.away is not True:
            if self.lease is None:
                raise NotFound(404, "NotFound", "none")
            if obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict(409, "Conflict", "changed")
        return self._write(obj)

    def _write(self, obj: Json) -> Json:
        if self.away is True:
            raise Unavailable(0, "NoAnswer", "away")
        self.version += 1
        metadata = obj["metadata"] | {"resourceVersion": str(self.version)}
        self.lease = copy.deepcopy(obj | {"metadata": metadata})
        self.written.append(self.now)
        if self.away:
            raise Unavailable(0, "NoAnswer", "away")
        return copy.deepcopy(self.lease)

    def annotate(self) -> None:
        assert self.lease is not None
        self.version += 1
        metadata = self.lease["metadata"]
        metadata |= {"annotations": {"note": "x"}, "resourceVersion": str(self.version)}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def elected(leases: Leases, identity: str = "a") -> Candidate:
    found = leases.candidate(identity)
    assert run(found.try_to_lead())
    return found


def watched(leases: Leases, candidate: Candidate, seconds: int) -> bool:
    """Whether it leads after having looked every second."""
    for _ in range(seconds):
        leases.now += 1
        if run(candidate.try_to_lead()):
            return True
    return False


def test_the_first_leads_and_says_who_it_is() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    assert first.holds()
    assert leases.lease is not None
    assert leases.lease["metadata"]["name"] == "dtjob-operator"
    spec = leases.lease["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", LEASE_SECONDS)
    assert spec["leaseTransitions"] == 1
    assert not run(second.try_to_lead())
    assert (second.holder, second.holds()) == ("a", False)


def test_a_silent_leader_is_followed_after_its_lease_and_no_sooner() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b", ahead=7e5)
    assert not run(second.try_to_lead())
    assert not watched(leases, second, LEASE_SECONDS - 1)
    assert not first.holds(), "long before another leads"
    assert watched(leases, second, 1)
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 2


def test_what_is_written_in_a_lease_dates_nothing() -> None:
    """Its times are of another machine's clock."""
    leases = Leases()
    elected(leases)
    assert leases.lease is not None
    for of_old in ("renewTime", "acquireTime"):
        leases.lease["spec"][of_old] = "1999-01-01T00:00:00.000000Z"
    assert not run(leases.candidate("b").try_to_lead())


def test_each_renewal_that_is_seen_begins_the_wait_anew() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    for _ in range(10):
        leases.now += DEADLINE_SECONDS - 1
        run(first.renew())
        assert not run(second.try_to_lead())
        assert first.holds()


def test_a_lease_that_is_given_back_is_free_at_once() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    assert not run(second.try_to_lead())
    run(first.release())
    assert not first.holds()
    assert run(second.try_to_lead())


def test_who_does_not_hold_it_gives_nothing_back() -> None:
    leases = Leases()
    first = elected(leases)
    leases.now += LEASE_SECONDS
    run(first.release())
    assert len(leases.written) == 1


def test_a_deleted_lease_ends_its_holder_and_is_waited_out() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    assert not run(second.try_to_lead())
    leases.lease = None
    assert not run(second.try_to_lead()), "its holder has not noticed yet"
    with pytest.raises(Superseded, match="deleted"):
        run(first.renew())
    assert watched(leases, second, LEASE_SECONDS)


def test_a_note_on_a_lease_ends_nobody() -> None:
    leases = Leases()
    first = elected(leases)
    leases.annotate()
    run(first.renew())
    assert leases.lease is not None
    assert leases.lease["metadata"]["annotations"] == {"note": "x"}


def test_who_was_followed_hears_of_it() -> None:
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    run(second.try_to_lead())
    assert watched(leases, second, LEASE_SECONDS)
    with pytest.raises(Superseded, match="b leads"):
        run(first.renew())
    run(second.release())
    with pytest.raises(Superseded, match="another, for a while, leads"):
        run(first.renew())


def test_an_outage_that_nobody_used_costs_nothing() -> None:
    leases = Leases()
    first = elected(leases)
    leases.away = True
    leases.now += 3600
    with pytest.raises(ApiError):
        run(first.renew())
    assert not first.holds()
    leases.away = False
    run(first.renew())
    assert first.holds()


def test_after_an_outage_the_leader_has_time_to_come_back() -> None:
    """Else every second outage would cost a start, though nobody failed but the API server."""
    leases = Leases()
    first, second = elected(leases), leases.candidate("b")
    assert not run(second.try_to_lead())
    leases.now += 60
    assert not watched(leases, second, 3)
    run(first.renew())
    assert first.holds()
    leases.now += 60
    assert not watched(leases, second, LEASE_SECONDS)
    assert watched(leases, second, 1), "it never came back"


def test_a_look_that_fails_now_and_then_delays_nothing() -> None:
    leases = Leases()
    elected(leases)
    second = leases.candidate("b")
    assert not run(second.try_to_lead())
    for _ in range(LEASE_SECONDS // 5):
        leases.away = True
        leases.now += 4
        with pytest.raises(ApiError):
            run(second.try_to_lead())
        leases.away = False
        leases.now += 1
        led = run(second.try_to_lead())
    assert led


def test_a_write_whose_answer_was_lost_is_found_again() -> None:
    leases = Leases()
    first = leases.candidate("a")
    for attempt in (first.try_to_lead, first.renew):
        leases.away = "after"
        with pytest.raises(ApiError):
            run(attempt())
        leases.away = False
        run(attempt())
        assert first.holds()
        leases.now += 5


def test_the_time_counts_from_before_the_request() -> None:
    class Slow(Leases):
        async def replace(self, obj: Json) -> Json:
            written = await super().replace(obj)
            self.now += 4
            return written

    leases = Slow()
    first = elected(leases)
    run(first.renew())
    leases.now += DEADLINE_SECONDS - 4
    assert not first.holds()


def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Leases):
        async def get(self, _kind: Kind, _namespace: str, _name: str) -> Json:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("dtjob_operator.kube.election._ANSWER_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="has not answered about Lease"):
        run(Hanging().candidate("a").try_to_lead())


@pytest.mark.parametrize("seed", range(200))
def test_no_two_lead_at_a_time(seed: int) -> None:
    """Clocks that differ, requests that fail with effect and without, notes and kills."""
    chance, leases = random.Random(seed), Leases()
    names = iter(range(1000))

    def fresh() -> Candidate:
        return leases.candidate(str(next(names)), chance.uniform(-1e6, 1e6))

    async def course() -> int:
        candidates, leading, led = [fresh(), fresh(), fresh()], set[int](), 0
        for _ in range(600):
            leases.now += chance.choice([0.2, 0.4, 0.8] if chance.random() < 0.98 else [8, 20])
            answers: list[bool | str] = [False, False, False, True, "after"]
            leases.away = chance.choice(answers)
            if leases.lease is not None and chance.random() < 0.05:
                leases.annotate()
            number = chance.randrange(len(candidates))
            candidate = candidates[number]
            try:
                if number not in leading:
                    if await candidate.try_to_lead():
                        leading.add(number)
                        led += 1
                elif chance.random() < 0.8:
                    await candidate.renew()
                else:
                    leading.discard(number)
                    candidates[number] = fresh()
                    if chance.random() < 0.5:  # else it was killed
                        await candidate.release()
            except Superseded:
                leading.discard(number)
                candidates[number] = fresh()
            except ApiError:
                pass
            assert sum(each.holds() for each in candidates) <= 1
        return led

    assert asyncio.run(course()) > 3


def edited(api: Leases, **spec: Any) -> None:
    """Change what the Lease says by hand."""
    api.annotate()
    assert api.lease is not None
    api.lease["spec"] |= spec


@pytest.mark.parametrize("seconds", [1, 10**8])
def test_for_how_long_a_lease_holds_is_no_matter_of_what_it_says(seconds: int) -> None:
    api = Leases()
    leader, standby = api.candidate("a"), api.candidate("b")
    assert run(leader.try_to_lead())
    edited(api, leaseDurationSeconds=seconds)
    waited = 0
    while not run(standby.try_to_lead()):
        assert not (leader.holds() and standby.holds())
        api.now += 1
        waited += 1
    assert not leader.holds()
    assert LEASE_SECONDS <= waited <= LEASE_SECONDS + 1


def test_transitions_are_counted_no_further_than_a_lease_can_say() -> None:
    api = Leases()
    assert run(api.candidate("a").try_to_lead())
    edited(api, leaseTransitions=2**31 - 1, holderIdentity=None)
    assert run(api.candidate("b").try_to_lead())
    assert api.lease is not None
    assert api.lease["spec"]["leaseTransitions"] == 2**31 - 1
