from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dtjob_trainer.trial.notebook import Notebook


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = os.memfd_create("notebook")
    yield made
    os.close(made)


def test_the_page_is_what_was_written_last(descriptor: int) -> None:
    notebook = Notebook(descriptor)
    assert notebook.read() is None
    for page in ({"stage": "opening the dataset …"}, {"reading": 3}):
        notebook.write(page)
        assert notebook.read() == page


def test_half_a_page_is_none(descriptor: int) -> None:
    Notebook(descriptor).write({"reading": 3})
    os.ftruncate(descriptor, 12)
    assert Notebook(descriptor).read() is None
