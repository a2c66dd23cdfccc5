"""Whether a record is one of those that `example_spec` describes, for whoever reads one (Rule 20).

Training reads by this, and `dtjob check-data`: neither can find another record bad than the other.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from dtjob_trainer.task import ArraySpec, Records

Array = npt.NDArray[Any]  # of the dtype that the field's ArraySpec names
Arrays = dict[str, Array]

_KIND_RANK = {"b": 0, "i": 1, "u": 1, "f": 2}


class Fault(StrEnum):
    """Why a record contributes zero."""

    UNREADABLE = "can't be read"
    NO_FIELD = "no such field"
    OTHER_SHAPE = "another shape"
    OTHER_DTYPE = "another kind of dtype"
    NOT_FINITE = "not finite"
    OUT_OF_RANGE = "out of range"


@dataclass(frozen=True)
class Misfit:
    """What is wrong with a record.

    Attributes
    ----------
    field
        Where; None if the record itself can't be had.
    fault
        What.
    words
        The same for people: private, as all of this is (Rule 20).
    error
        What was raised, of which `str` tells the last line of the traceback.
    """

    field: str | None
    fault: Fault
    words: str = ""
    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return self.words
        return "".join(traceback.format_exception(self.error, limit=-1)).rstrip()


def read_into(
    arrays: Arrays, row: int, records: Records, index: int, example_spec: Mapping[str, ArraySpec]
) -> Misfit | None:
    """Read a record into one row of `arrays`, whose ranges are not looked at.

    Parameters
    ----------
    arrays
        {name: ndarray[rows, *shape]}, of the dtypes of `example_spec`; what is left in the row of
        a misfit means nothing.

    Returns
    -------
    Misfit or None
        Why it has no row, if so.
    """
    field: str | None = None
    try:
        record = records[index]
        for field, spec in example_spec.items():
            value, array = np.asarray(record[field]), arrays[field]
            if value.shape != spec.shape:
                words = f"{field} has shape {value.shape}, not {spec.shape}"
                return Misfit(field, Fault.OTHER_SHAPE, words)
            if value.dtype != array.dtype and (misfit := _unlike(field, value, spec)):
                return misfit
            array[row] = value
    except Exception as error:
        missing = field is not None and isinstance(error, KeyError)
        return Misfit(field, Fault.NO_FIELD if missing else Fault.UNREADABLE, error=error)
    return None


def inside(values: Array, spec: ArraySpec) -> npt.NDArray[np.bool_]:
    """Which rows of a field, [rows, *shape], are within its range; NaN is outside any."""
    flat = values.reshape(len(values), -1)
    return np.asarray(((flat >= spec.low) & (flat <= spec.high)).all(axis=1))


def out_of_range(field: str, value: Array, spec: ArraySpec) -> Misfit:
    """Return what is wrong with a value that is not `inside`."""
    if not np.isfinite(value).all():
        return Misfit(field, Fault.NOT_FINITE, f"{field} is not finite")
    words = f"{field} leaves its range [{spec.low}, {spec.high}]"
    return Misfit(field, Fault.OUT_OF_RANGE, words)


def examine(records: Records, index: int, example_spec: Mapping[str, ArraySpec]) -> Misfit | None:
    """Return why training would count this record as zero; None if it would not."""
    arrays = {field: np.zeros((1, *spec.shape), spec.dtype) for field, spec in example_spec.items()}
    if (misfit := read_into(arrays, 0, records, index, example_spec)) is not None:
        return misfit
    for field, spec in example_spec.items():
        if not inside(arrays[field], spec).all():
            return out_of_range(field, arrays[field], spec)
    return None


def converts(dtype: np.dtype[Any], spec: ArraySpec) -> bool:
    """Whether a dtype is of the kind of a field's, or of one that it holds."""
    source, target = dtype.kind, np.dtype(spec.dtype).kind
    return source in _KIND_RANK and _KIND_RANK[source] <= _KIND_RANK[target]


def _unlike(field: str, value: Array, spec: ArraySpec) -> Misfit | None:
    """Judge another dtype; and the range, where a cast would wrap a value or warn of it."""
    if not converts(value.dtype, spec):
        words = f"{field} has dtype {value.dtype}, which is no {spec.dtype}"
        return Misfit(field, Fault.OTHER_DTYPE, words)
    if not inside(value[None], spec).all():
        return out_of_range(field, value, spec)
    return None
