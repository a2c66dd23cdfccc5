"""Records that are bad, each in its own way, for the spec of `models.make_task`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dtjob_trainer.mechanism.records.reading import Fault
from tests.support.mechanism.models import FEATURES

X = np.zeros(FEATURES, np.float32)

BAD: tuple[tuple[Fault, str | None, Any], ...] = (
    (Fault.NOT_FINITE, "x", {"x": np.full(FEATURES, np.nan, np.float32), "y": 0}),
    (Fault.NOT_FINITE, "x", {"x": np.full(FEATURES, np.inf, np.float32), "y": 0}),
    (Fault.OUT_OF_RANGE, "x", {"x": np.full(FEATURES, 1.5, np.float32), "y": 0}),
    (Fault.OUT_OF_RANGE, "x", {"x": np.full(FEATURES, 1e300), "y": 0}),
    (Fault.OTHER_SHAPE, "x", {"x": np.zeros(FEATURES + 1, np.float32), "y": 0}),
    (Fault.OTHER_SHAPE, "x", {"x": np.zeros((), np.float32), "y": 0}),
    (Fault.OUT_OF_RANGE, "y", {"x": X, "y": 3}),
    (Fault.OUT_OF_RANGE, "y", {"x": X, "y": -1}),
    (Fault.OTHER_DTYPE, "y", {"x": X, "y": 1.0}),
    (Fault.OUT_OF_RANGE, "y", {"x": X, "y": np.uint64(2**64 - 1)}),
    (Fault.OTHER_DTYPE, "x", {"x": np.zeros(FEATURES, np.complex64), "y": 0}),
    (Fault.OTHER_DTYPE, "x", {"x": ["a"] * FEATURES, "y": 0}),
    (Fault.NO_FIELD, "y", {"x": X}),
    (Fault.UNREADABLE, "x", None),
    (Fault.UNREADABLE, None, OSError("torn file")),
    (Fault.UNREADABLE, None, ValueError("cannot decode")),
    (Fault.UNREADABLE, None, MemoryError("a header that lies")),
)


class Broken:
    """Every record but the first two is bad: record i is `BAD[i - 2]`."""

    def __len__(self) -> int:
        return 2 + len(BAD)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        if index < 2:
            return {"x": np.full(FEATURES, 0.5), "y": np.int32(index)}
        record: Any = BAD[index - 2][2]
        if isinstance(record, Exception):
            raise record
        found: Mapping[str, Any] = record
        return found
