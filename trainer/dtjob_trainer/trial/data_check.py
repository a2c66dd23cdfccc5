"""`python -m dtjob_trainer.trial.data_check`: the process that tries a data set for its owner.

It finds the task and the data as a rank of a local run does. What it finds it notes for the command
that has started it: the task has standard output and error for itself. Its death is a finding too,
so it notes beforehand which record it reads.
"""

from __future__ import annotations

if __name__ == "__main__":
    from dtjob_trainer.usercode import library_first

    library_first.apply()

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dtjob_api.reasons import Reason
from dtjob_trainer.process import confine
from dtjob_trainer.task import Records, Task, TaskError, load_task, shown_in_full
from dtjob_trainer.trial.notebook import Notebook
from dtjob_trainer.usercode import data_place, library_first

Note = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """What is to be tried.

    Attributes
    ----------
    entrypoint, args
        Of the manifest's training.
    data_dir
        What stands for the job's data, if it has any.
    records
        How many to try, evenly spread; all if None.
    """

    entrypoint: str
    args: Mapping[str, Any]
    data_dir: str | None
    records: int | None


def main(request: Request, note: Note) -> None:
    """Note the `stage`, then the `findings` as they grow, `done` at the end; or why it `failed`."""
    note({"stage": "importing torch"})
    # All that is needed of dtjob, before anything may be imported from the task's folder.
    from dtjob_trainer.mechanism.records import agreement, opening  # noqa: F401
    from dtjob_trainer.trial import survey  # noqa: F401

    library_first.admit_working_folder()
    try:
        note({"stage": "importing the task"})
        with data_place.closed(request.data_dir):
            task = _tried("the entrypoint", lambda: load_task(request.entrypoint, request.args))
        note({"stage": "opening the dataset"})
        if request.data_dir is not None:
            data_place.announce(request.data_dir)
        check(task, request.records, note)
    except TaskError as error:
        note({"failed": {"reason": error.reason.value, "message": error.message}})


def check(task: Task, limit: int | None, note: Note) -> None:
    """Try the records of a task.

    Parameters
    ----------
    limit
        How many to try, evenly spread; all if None.

    Raises
    ------
    TaskError
        There are none to try.
    """
    import numpy as np
    import torch

    from dtjob_trainer.mechanism.records.opening import require_map_style
    from dtjob_trainer.trial.survey import Survey, tried
    from dtjob_trainer.usercode.randomness import same_randomness

    with same_randomness(torch.device("cpu")):
        records = _tried("Task.dataset()", task.dataset)
    _tried("len of Task.dataset()", lambda: require_map_style(records))
    length = len(records)
    ids = np.linspace(0, length - 1, min(limit or length, length)).astype(int).tolist()
    survey = Survey()

    def found(refused: list[str]) -> dict[str, Any]:
        counts = {"records": length, "asked": len(ids)}
        return {**counts, **survey.as_object(task.example_spec), "refused": refused}

    for index in tried(records, task.example_spec, ids, survey):
        note({"findings": found([]), "reading": index})
    # Last, so that a record that kills the process is found by its number. It may do so now only.
    note({"findings": found([]), "reading": None})
    note({"findings": found(_at_start(records, task)), "done": True})


def _at_start(records: Records, task: Task) -> list[str]:
    """Why training would refuse these records before its first step."""
    import torch

    from dtjob_trainer.mechanism.group import Group
    from dtjob_trainer.mechanism.records import agreement, opening

    spec, cpu = task.example_spec, torch.device("cpu")
    refused: list[str] = []
    with contextlib.suppress(BaseException):  # of a record that ends the job: it is counted already
        for require in (
            lambda: opening.require_structure(records, spec, cpu),
            lambda: agreement.agreed_length(records, spec, Group()),
        ):
            try:
                require()
            except TaskError as error:
                refused.append(error.message)
    return refused


def _tried(what: str, call: Callable[[], Any]) -> Any:
    """Call what is the task's; whoever owns the data may see all that it raises."""
    try:
        return call()
    except TaskError:
        raise
    except BaseException as error:
        remedy = data_place.remedy(error) or "Correct the task, or say where its data are"
        message = shown_in_full(f"{what} raised", error, remedy)
        raise TaskError(Reason.TASK_FAILED, message) from None


def _serve(descriptor: int) -> None:
    confine.end_with_parent(signal.SIGKILL)
    confine.forbid_core_dumps()
    os.set_inheritable(descriptor, False)
    main(Request(**json.load(sys.stdin)), Notebook(descriptor).write)
    os._exit(0)  # threads of the task must not keep it alive


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
