from __future__ import annotations

import os

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_cli import manifests, planning
from dtjob_cli.runs import local_workers
from tests.support.checkout import DIGITS


def _job(**workers: int) -> DistributedTrainingJob:
    manifest = manifests.read(DIGITS)
    manifest["spec"]["workers"] |= workers
    return manifests.job(manifest)


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
    assert planning.step_shape(_job(gpusPerWorker=4), 2).ranks == 8


def test_a_step_of_617_rows_is_two_halves_and_not_two_times_512() -> None:
    job = _job()
    training = job.spec.training.model_copy(update={"batch_size": 512})
    privacy = job.spec.privacy.model_copy(update={"dataset_size": 5000})
    spec = job.spec.model_copy(update={"training": training, "privacy": privacy})

    shape = planning.step_shape(job.model_copy(update={"spec": spec}), 1)

    assert shape == planning.StepShape(ranks=1, rows=617, physical_batch_size=309, micro_batches=2)
