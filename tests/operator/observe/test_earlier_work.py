"""Which ledgers make a job needless, and which have spent on the same work in vain."""

from __future__ import annotations

from typing import Any

import pytest

from dtjob_api.content import content
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import Content
from dtjob_operator.observe.earlier_work import completed, is_looked_for, of_same_work, spent
from dtjob_operator.read.stored_job import parsed
from tests.support.worlds.world import digits

Json = dict[str, Any]


def job(rerun: int = 0) -> DistributedTrainingJob:
    return parsed(digits(rerun=rerun))


def work() -> Content:
    found = content(job().spec)
    assert found is not None
    return found


WORK = work()


def ledger(name: str, state: str | None, *, rerun: int = 0, charged: int = 40, **spec: Any) -> Json:
    status: Json = {"charged": charged}
    if state:
        status["outcome"] = {"state": state}
    work = {"jobName": "digits", "rerun": rerun, "content": WORK.to_dict()}
    return {"metadata": {"name": name}, "spec": work | spec, "status": status}


@pytest.mark.parametrize(
    "other",
    [
        {"jobName": "digits-more"},
        {"content": None},
        {"content": {"format": 2, "sha256": WORK.sha256}},
        {"content": {"format": 1, "sha256": "0" * 64}},
    ],
)
def test_other_work_is_no_matter(other: Json) -> None:
    assert list(of_same_work(job(), [ledger("a", "Succeeded", **other)])) == []


def test_arguments_that_are_too_deep_are_no_work() -> None:
    """Such a job is refused; nobody can follow them, and one of them ended each look at it."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    stored = digits()
    stored["spec"]["training"]["args"] = {"deep": deep}
    assert list(of_same_work(parsed(stored), [ledger("a", "Succeeded")])) == []


@pytest.mark.parametrize(
    ("found", "rerun", "name"),
    [
        ([("a", "Succeeded", 0)], 0, "a"),
        ([("a", "Failed", 0)], 0, None),
        ([("a", None, 0)], 0, None),
        ([("a", "Succeeded", 0)], 1, None),
        ([("a", "Succeeded", 2), ("b", "Succeeded", 1)], 1, "a"),
        ([("b", "Succeeded", 0), ("a", "Succeeded", 0)], 0, "a"),
        ([("a", "Failed", 3), ("b", "Succeeded", 0)], 0, "b"),
    ],
)
def test_a_success_of_a_run_that_is_at_least_as_new_makes_it_needless(
    found: list[tuple[str, str | None, int]], rerun: int, name: str | None
) -> None:
    ledgers = [ledger(each, state, rerun=run) for each, state, run in found]
    done = completed(job(rerun), ledgers)
    assert (done["metadata"]["name"] if done else None) == name


def test_what_was_charged_counts_however_it_ended() -> None:
    found = spent([ledger("b", None), ledger("a", "Failed"), ledger("c", None, charged=0)])
    assert [tuple(each) for each in found] == [("a", 40), ("b", 40)]


@pytest.mark.parametrize(
    ("conditions", "looked_for"),
    [
        ([], True),
        ([("Accepted", "Unknown", "Planning")], True),
        ([("Accepted", "True", "Planned")], False),
        ([("Accepted", "True", "Planned"), ("Succeeded", "True", "AlreadyCompleted")], True),
        ([("Accepted", "True", "Planned"), ("Succeeded", "True", "Completed")], False),
    ],
)
def test_no_other_stands_for_a_ledger_that_is_lost(
    conditions: list[tuple[str, str, str]], looked_for: bool
) -> None:
    status = [{"type": kind, "status": is_true, "reason": why} for kind, is_true, why in conditions]
    assert is_looked_for({"status": {"conditions": status}}) is looked_for
