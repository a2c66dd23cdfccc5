"""What the process that tries a data set notes for the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dtjob_api.reasons import Reason
from dtjob_trainer.task import TaskError
from dtjob_trainer.trial import data_check
from tests.support.mechanism.models import Records, make_task, rows
from tests.support.mechanism.ranks import Augmented, Stream


def checked(records: Any, limit: int | None = None) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    data_check.check(make_task(records=records), limit, notes.append)
    return notes


def test_each_record_is_noted_before_it_is_read() -> None:
    notes = checked(Records(rows(3)))
    assert [note.get("reading") for note in notes] == [0, 1, 2, None, None]
    assert [note["findings"]["tried"] for note in notes] == [0, 1, 2, 3, 3]
    assert [note.get("done") for note in notes] == [None, None, None, None, True]
    assert notes[-1]["findings"]["refused"] == []


def test_a_limit_spreads_over_the_whole() -> None:
    notes = checked(Records(rows(9)), 3)
    assert [note.get("reading") for note in notes[:-2]] == [0, 4, 8]
    assert (notes[-1]["findings"]["asked"], notes[-1]["findings"]["records"]) == (3, 9)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([({}, 0)] * 3, "it is a tuple; [i] has to give"),
        (Stream(rows(40)), "others each time the same index is read"),
        (Augmented(rows(40)), "is read, in x:"),
    ],
)
def test_why_training_would_refuse_the_data_is_noted(records: Any, words: str) -> None:
    (refused,) = checked(records)[-1]["findings"]["refused"]
    assert words in refused


class Leaving(Records):
    def __getitem__(self, index: int, /) -> Any:
        raise SystemExit("JANE")


def test_what_ends_a_job_ends_no_check() -> None:
    assert checked(Leaving(rows(3)))[-1]["findings"]["bad"] == 3


class Unmeasured:
    def __len__(self) -> int:
        raise OSError("no index of JANE")

    def __getitem__(self, index: int) -> Any: ...


def no_file() -> Records:
    raise FileNotFoundError("data/JANE.csv")


def leaving() -> Records:
    raise SystemExit("no data for JANE")


@pytest.mark.parametrize(
    ("dataset", "reason", "words"),
    [
        (no_file, Reason.TASK_FAILED, "FileNotFoundError: data/JANE.csv"),
        (leaving, Reason.TASK_FAILED, "SystemExit: no data for JANE"),
        (Unmeasured, Reason.TASK_FAILED, "OSError: no index of JANE"),
        (list, Reason.DATASET_INVALID, "no records"),
    ],
)
def test_its_owner_sees_all_that_opening_the_data_raises(
    dataset: Callable[[], Any], reason: Reason, words: str
) -> None:
    with pytest.raises(TaskError) as caught:
        data_check.check(replace(make_task(), dataset=dataset), None, print)
    assert caught.value.reason is reason
    assert words in caught.value.message
