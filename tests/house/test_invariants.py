"""Each invariant of the cluster tests is seen to fail, and a job's usual course to break none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clusters.invariants import BURST, STATUS_BYTES, Invariants

Manifest = dict[str, Any]
Change = Callable[[Manifest], object]
METADATA = {"namespace": "research", "name": "digits", "uid": "1", "resourceVersion": "1"}


def entry(number: int, manager: str = "dtjob-operator") -> list[Manifest]:
    return [{"manager": manager, "operation": "Update", "time": f"2026-01-01T00:00:{number:02}Z"}]


def condition(kind: str, status: str) -> Manifest:
    return {"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}


def job(**status: Any) -> Manifest:
    spent = {"drawsCharged": 10, "epsilonSpent": "0.30"}
    return {
        "kind": "DistributedTrainingJob",
        "metadata": METADATA | {"managedFields": entry(0)},
        "status": {
            "phase": "Running",
            "privacy": spent,
            "conditions": [condition("Running", "True")],
        }
        | status,
    }


def ended() -> Manifest:
    return job(phase="Succeeded", conditions=[condition("Succeeded", "True")])


def another_run(rerun: int) -> Manifest:
    """The status with which a run after the first begins."""
    return {"phase": "Pending", "rerun": rerun, "previousRuns": [{"rerun": 0}]}


def ledger() -> Manifest:
    return {
        "kind": "PrivacyLedger",
        "metadata": dict(METADATA),
        "spec": {"plan": {"steps": 10}},
        "status": {"charged": 10, "attempt": 1},
    }


def of_set() -> Manifest:
    owner = {"kind": "DistributedTrainingJob", "uid": "job", "controller": True}
    metadata = METADATA | {"ownerReferences": [owner], "managedFields": entry(0)}
    return {"kind": "StatefulSet", "metadata": metadata}


def found(first: Manifest, change: Change, manager: str = "dtjob-operator") -> list[str]:
    """What the second version of an object breaks."""
    second = copy.deepcopy(first)
    second["metadata"] |= {"resourceVersion": "2", "managedFields": entry(1, manager)}
    change(second)
    invariants = Invariants()
    assert not list(invariants.violations("ADDED", first, 0.0))
    return list(invariants.violations("MODIFIED", second, 1.0))


BROKEN: dict[str, tuple[Manifest, Change, str]] = {
    "epsilon falls": (
        job(),
        lambda o: o["status"]["privacy"].update(epsilonSpent="0.2"),
        "epsilonSpent went from 0.30 to 0.2",
    ),
    "epsilon vanishes": (
        job(),
        lambda o: o["status"]["privacy"].pop("epsilonSpent"),
        "epsilonSpent went from 0.30 to None",
    ),
    "draws vanish": (
        job(),
        lambda o: o["status"].pop("privacy"),
        "drawsCharged went from 10 to None",
    ),
    "an end is taken back": (
        ended(),
        lambda o: o["status"].update(conditions=[condition("Succeeded", "False")]),
        "it had Succeeded",
    ),
    "an end becomes another": (
        ended(),
        lambda o: o["status"].update(phase="Failed", conditions=[condition("Failed", "True")]),
        "it had Succeeded",
    ),
    "another run begins before the last has ended": (
        job(),
        lambda o: o.update(status=another_run(1)),
        "run 1 began",
    ),
    "a run is forgotten": (
        ended(),
        lambda o: o.update(status=another_run(1) | {"previousRuns": [{"rerun": 5}]}),
        "run 1 began",
    ),
    "an earlier run comes back": (
        job(rerun=1),
        lambda o: o["status"].pop("rerun"),
        "it was at run 1",
    ),
    "a large status": (
        job(),
        lambda o: o["status"].update(display="x" * STATUS_BYTES),
        "bytes",
    ),
    "a condition twice": (
        job(),
        lambda o: o["status"]["conditions"].append(condition("Running", "False")),
        "there twice",
    ),
    "a ledger is lowered": (
        ledger(),
        lambda o: o["status"].update(charged=9),
        "status.charged went from 10 to 9",
    ),
    "a ledger loses its status": (
        ledger(),
        lambda o: o.pop("status"),
        "status.attempt went from 1 to 0",
    ),
    "a plan changes": (
        ledger(),
        lambda o: o["spec"].update(plan={"steps": 11}),
        "its plan was changed",
    ),
    "a set of nobody's": (
        of_set(),
        lambda o: o["metadata"].pop("ownerReferences"),
        "controllers []",
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_what_must_not_be_is_found(case: tuple[Manifest, Change, str]) -> None:
    first, change, words = case
    assert any(words in each for each in found(first, change)), found(first, change)


@pytest.mark.parametrize("first", [job(), ended(), ledger(), of_set()])
def test_a_usual_course_breaks_nothing(first: Manifest) -> None:
    assert not found(first, lambda _obj: None)
    assert not found(job(), lambda o: o["status"]["privacy"].update(epsilonSpent="0.31"))
    assert not found(ended(), lambda o: o.update(status=another_run(1)))


def test_what_a_test_forges_is_not_the_operators() -> None:
    assert not found(job(), lambda o: o["status"].pop("privacy"), manager="kubectl")


def test_who_takes_a_field_away_is_not_who_wrote_it() -> None:
    """The entry of the field's owner changes too, but for its time."""

    def taken(stored: Manifest) -> None:
        stored["metadata"].pop("ownerReferences")
        stored["metadata"]["managedFields"] = [entry(0)[0] | {"fieldsV1": {}}]

    assert not found(of_set(), taken)


@pytest.mark.parametrize(("seconds", "broken"), [(0.1, True), (1.0, False)])
def test_a_loop_is_found(seconds: float, broken: bool) -> None:
    invariants, seen = Invariants(), []
    for number in range(BURST + 5):
        version = job()
        version["metadata"] = METADATA | {
            "resourceVersion": str(number + 1),
            "managedFields": entry(number),
        }
        seen += list(invariants.violations("MODIFIED", version, number * seconds))
    assert bool(seen) is broken


def test_an_object_that_was_deleted_is_forgotten() -> None:
    invariants = Invariants()
    list(invariants.violations("ADDED", ledger(), 0.0))
    list(invariants.violations("DELETED", ledger(), 0.0))
    again = ledger() | {"status": {"charged": 0}}
    assert not list(invariants.violations("ADDED", again, 0.0))
