from __future__ import annotations

import os
from typing import Any

import pytest

from dtjob_accounting.plan import Plan
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_cli import manifests, planning
from dtjob_cli.runs import local_workers
from tests.support.builders import privacy_plan
from tests.support.checkout import DIGITS


def _job(**workers: int) -> DistributedTrainingJob:
    manifest = manifests.read(DIGITS)
    manifest["spec"]["workers"] |= workers
    return manifests.job(manifest)


def _plan(**changes: Any) -> Plan:
    """The plan of the digits job, whose σ and ε don't matter here; `changes` replaces fields."""
    return Plan(**dict(privacy_plan()) | changes)


@pytest.mark.parametrize(
    ("workers", "threads"), [({"processesPerWorker": 2}, 4), ({"gpusPerWorker": 4}, 2), ({}, 8)]
)
def test_each_rank_gets_its_part_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, workers: dict[str, int], threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    environment = local_workers.environment(_job(**workers), 2)

    assert environment["OMP_NUM_THREADS"] == str(threads)


def test_with_gpus_there_is_a_rank_for_each() -> None:
    assert planning.step_shape(_job(gpusPerWorker=4), _plan(), 2).ranks == 8


def test_a_step_of_650_rows_is_two_halves_and_not_two_times_512() -> None:
    shape = planning.step_shape(_job(), _plan(batch_size=512, dataset_size=5000), 1)

    assert shape == planning.StepShape(ranks=1, rows=650, physical_batch_size=325, micro_batches=2)


@pytest.mark.rule(8)
@pytest.mark.parametrize(("delta", "steps", "rows"), [(1e-5, 336, 350), (1e-9, 10_000, 377)])
def test_a_step_has_rows_for_all_but_a_part_of_delta(delta: float, steps: int, rows: int) -> None:
    assert planning.step_shape(_job(), _plan(delta=delta, steps=steps), 2).rows == rows
