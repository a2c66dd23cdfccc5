"""Digits at a chosen speed, and with the mistakes that people make."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dtjob_trainer.task import Task
from dtjob_trainer.tasks import digits


def task(args: Mapping[str, Any]) -> Task:
    """``seconds``: how long each rank's share of a step takes at least."""
    seconds = float(args["seconds"])

    def losses(model: Any, batch: Any) -> Any:
        time.sleep(seconds)
        return digits.losses(model, batch)

    return replace(digits.task({}), losses=losses)


def raises_in_dry_run(args: Mapping[str, Any]) -> Task:
    def losses(model: Any, batch: Any) -> Any:
        raise ValueError("shapes do not fit")

    return replace(digits.task({}), losses=losses)


def raises_on_private_data(args: Mapping[str, Any]) -> Task:
    def dataset() -> Any:
        print("the patient is JANE DOE")
        os.write(2, b"the patient is JANE DOE\n")
        raise ValueError("can't parse the record of JANE DOE")

    return replace(digits.task({}), dataset=dataset)


def with_batch_norm(args: Mapping[str, Any]) -> Task:
    import torch

    def model() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(65, 10), torch.nn.BatchNorm1d(10))

    return replace(digits.task({}), model=model)


def with_mean_loss(args: Mapping[str, Any]) -> Task:
    def losses(model: Any, batch: Any) -> Any:
        return digits.losses(model, batch).mean()

    return replace(digits.task({}), losses=losses)
