"""What tests of real worker processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gang import GangRun


@pytest.fixture
def runs() -> Iterator[list[GangRun]]:
    started: list[GangRun] = []
    yield started
    for run in started:
        run.stop()
