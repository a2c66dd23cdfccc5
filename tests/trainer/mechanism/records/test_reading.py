"""Rule 20: training and `dtjob check-data` find the same records bad."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.records.batches import BatchLoader
from dtjob_trainer.mechanism.records.reading import examine
from tests.support.mechanism.bad_records import BAD, Broken
from tests.support.mechanism.models import KEYS, make_task

SPEC = make_task().example_spec


@pytest.mark.rule(20)
def test_a_record_is_bad_for_whoever_tries_it_if_it_is_for_training() -> None:
    records, words = Broken(), dict[int, str]()
    ids = np.arange(len(records))
    loader = BatchLoader(records, SPEC, KEYS.loading, torch.device("cpu"), words.__setitem__)
    mask = loader.micro_batch(0, ids, np.ones(len(ids), dtype=np.bool_)).mask.tolist()
    for index in ids.tolist():
        misfit = examine(records, index, SPEC)
        assert (misfit is None) is mask[index]
        assert words.get(index) == (None if misfit is None else str(misfit))


def test_a_misfit_has_its_field_and_its_fault() -> None:
    records = Broken()
    found = [examine(records, index, SPEC) for index in range(len(records))]
    assert found[:2] == [None, None]
    assert [misfit and (misfit.fault, misfit.field) for misfit in found[2:]] == [
        (fault, field) for fault, field, _ in BAD
    ]
