"""Digits at a chosen speed, and with the mistakes that people make."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from dtjob_trainer.task import Task
from dtjob_trainer.tasks import digits


def task(args: Mapping[str, Any]) -> Task:
    """`seconds`: how long each rank's share of a step takes at least."""
    seconds = float(args["seconds"])

    def losses(model: Any, batch: Any) -> Any:
        time.sleep(seconds)
        return digits.losses(model, batch)

    return replace(digits.task({}), losses=losses)


def chatty(args: Mapping[str, Any]) -> Task:
    """Prints `lines` long lines where it is made, by Python and by a program, and of its data."""
    os.system("echo said by a program")
    for number in range(int(args["lines"])):
        print(f"line {number:05} {'x' * 80}")
    print("said where the task is made", flush=True)

    def dataset() -> Any:
        print("said of private data", flush=True)
        os.system("echo said of private data by a program")
        return digits.task({}).dataset()

    return replace(task(args), dataset=dataset)


def slow_where_many(args: Mapping[str, Any]) -> Task:
    """Slow with as many rows as a step has; most passes of the dry run have a few rows."""
    seconds, rows = float(args["seconds"]), int(args["rows"])

    def losses(model: Any, batch: Any) -> Any:
        if len(batch["label"]) >= rows:
            time.sleep(seconds)
        return digits.losses(model, batch)

    return replace(digits.task({}), losses=losses)


def paced(args: Mapping[str, Any]) -> Task:
    """Takes `seconds` for each share of a step while there is a file `while`; then no time."""
    seconds, pace = float(args["seconds"]), Path(args["while"])

    def losses(model: Any, batch: Any) -> Any:
        if pace.exists():
            time.sleep(seconds)
        return digits.losses(model, batch)

    return replace(digits.task({}), losses=losses)


def raises_in_dry_run(args: Mapping[str, Any]) -> Task:
    def losses(model: Any, batch: Any) -> Any:
        raise ValueError("shapes do not fit")

    return replace(digits.task({}), losses=losses)


def raises_in_evaluation(args: Mapping[str, Any]) -> Task:
    def evaluate(model: Any) -> Any:
        raise ValueError("no public data here")

    return replace(digits.task({}), evaluate=evaluate)


def raises_on_private_data(args: Mapping[str, Any]) -> Task:
    """Prints a record in every way that Python has of writing to the pod's log."""
    own = logging.getLogger("clinic.own")
    own.addHandler(logging.StreamHandler(os.fdopen(os.dup(2), "w", buffering=1)))
    logged_with_structlog = structlog.get_logger()
    structlog.contextvars.bind_contextvars(name="JANE DOE")

    def dataset() -> Any:
        print("the patient is JANE DOE")
        os.write(2, b"the patient is JANE DOE\n")
        try:
            raise KeyError("JANE DOE")
        except KeyError:
            logging.exception("record of %s", "JANE DOE")
        logging.error("the patient is JANE DOE")
        logging.getLogger("clinic").error("the patient is JANE DOE")
        own.error("the patient is JANE DOE")
        logged_with_structlog.error("the patient is JANE DOE")
        structlog.get_logger().error("the patient is JANE DOE")
        warnings.simplefilter("always")
        warnings.warn("the patient is JANE DOE", stacklevel=1)
        logging.captureWarnings(True)
        warnings.warn("the patient is JANE DOE", stacklevel=1)
        raise ValueError("can't parse the record of JANE DOE")

    return replace(digits.task({}), dataset=dataset)


def raises_once_its_data_are_open(args: Mapping[str, Any]) -> Task:
    class Records:
        asked = 0

        def __getitem__(self, index: int) -> Any:
            raise ValueError("JANE DOE")

        def __len__(self) -> int:
            self.asked += 1
            if self.asked > 1:  # once where they are opened
                raise ValueError("JANE DOE")
            return 1

    return replace(digits.task({}), dataset=Records)


def with_tuples(args: Mapping[str, Any]) -> Task:
    """Its records are pairs of values, as those of most tutorials."""

    def dataset() -> Any:
        return [("JANE DOE", 0)] * 9

    return replace(digits.task({}), dataset=dataset)


def with_batch_norm(args: Mapping[str, Any]) -> Task:
    import torch

    def model() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(65, 10), torch.nn.BatchNorm1d(10))

    return replace(digits.task({}), model=model)


def with_extra_state(args: Mapping[str, Any]) -> Task:
    """A checkpoint would release what is neither parameter nor buffer."""
    import torch

    class Linear(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

    return replace(digits.task({}), model=lambda: Linear(65, 10))


def with_a_private_mean(args: Mapping[str, Any]) -> Task:
    """Stores a mean of its records where the model is released with it."""
    import torch

    kept: list[Any] = []

    def model() -> Any:
        made = digits.model()
        made.register_buffer("mean", torch.zeros(1))
        kept.append(made)
        return made

    def dataset() -> Any:
        records = digits.task({}).dataset()
        for made in kept:
            made.mean.fill_(float(records[0]["pixels"].mean()) + 1)
        return records

    return replace(digits.task({}), model=model, dataset=dataset)


def reads_too_early(args: Mapping[str, Any]) -> Task:
    """Looks into its data for what they hold, as a vocabulary is made."""
    import numpy as np

    np.loadtxt(Path(args["data"], "people.csv"))
    return digits.task({})


def with_another_model(args: Mapping[str, Any]) -> Task:
    """Digits with a layer more."""
    import torch

    def model() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(65, 16), torch.nn.Linear(16, 10))

    return replace(digits.task({}), model=model)


def with_a_set_of_words(args: Mapping[str, Any]) -> Task:
    """Writes down in which order this process finds the words of a set."""
    with Path(args["orders"]).open("a") as file:
        file.write(" ".join({f"word{number}" for number in range(50)}) + "\n")
    return digits.task({})


def with_lock(args: Mapping[str, Any]) -> Task:
    def model() -> Any:
        locked: Any = digits.model()
        locked.lock = threading.Lock()
        return locked

    return replace(digits.task({}), model=model)


def with_panic(args: Mapping[str, Any]) -> Task:
    """Ends by what is no Exception, as the panic of a library in Rust."""

    class Panic(BaseException):
        pass

    def dataset() -> Any:
        raise Panic("JANE DOE")

    return replace(digits.task({}), dataset=dataset)


def without_its_data(args: Mapping[str, Any]) -> Task:
    def dataset() -> Any:
        return Path("no", "such", "records").read_text()

    return replace(digits.task({}), dataset=dataset)


def with_mean_loss(args: Mapping[str, Any]) -> Task:
    def losses(model: Any, batch: Any) -> Any:
        return digits.losses(model, batch).mean()

    return replace(digits.task({}), losses=losses)
