"""What is wrong with which records, counted. All of it is private: no epsilon covers it.

A record is judged by the code that training reads by, `mechanism.records.reading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dtjob_trainer.mechanism import coins
from dtjob_trainer.mechanism.records import opening, reading
from dtjob_trainer.mechanism.records.reading import Fault, Misfit
from dtjob_trainer.task import ArraySpec, Records, where_in_task
from dtjob_trainer.trial import ENDS_THE_JOB

_NO_FIELDS = "no fields"

_FIRST = 10
_LONGEST = 300
_KEY = bytes(32)  # public: who tries a data set twice is to see the same


@dataclass
class Found:
    """Records that share a fault in a field.

    Attributes
    ----------
    first
        The least indexes.
    example
        What is wrong with the first of them.
    """

    example: str
    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, index: int) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < _FIRST:
            self.first.append(index)


@dataclass
class Survey:
    """What was found in the records that were tried.

    Attributes
    ----------
    tried, bad
        How many records.
    faults
        By field, or None, and by what is wrong.
    ranges
        The least and the greatest finite number of a field, in all records that have it.
    """

    tried: int = 0
    bad: int = 0
    faults: dict[tuple[str | None, str], Found] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def as_object(self, example_spec: Mapping[str, ArraySpec]) -> dict[str, Any]:
        """Return it as JSON has it, each range beside that of `example_spec`."""
        return {
            "tried": self.tried,
            "bad": self.bad,
            "faults": [
                {"field": name, "reason": reason, **vars(found)}
                for (name, reason), found in self.faults.items()
            ],
            "ranges": {
                name: {
                    "least": self.ranges[name][0],
                    "greatest": self.ranges[name][1],
                    "low": np.asarray(spec.low).item(),
                    "high": np.asarray(spec.high).item(),
                }
                for name, spec in example_spec.items()
                if name in self.ranges
            },
        }


def tried(
    records: Records, example_spec: Mapping[str, ArraySpec], ids: Sequence[int], survey: Survey
) -> Iterator[int]:
    """Try records one by one; yield the id of each before it is read."""
    seen = _Seen(records)
    seeds = coins.read_seeds(_KEY, 0, np.asarray(ids, dtype=np.int64)).tolist()
    for index, seed in zip(ids, seeds, strict=True):
        yield index
        coins.begin_read(*seed)
        seen.record = None
        try:
            misfit = reading.examine(seen, index, example_spec)
        except BaseException as error:  # as a library in Rust may panic
            misfit, reason = Misfit(None, Fault.UNREADABLE, error=error), ENDS_THE_JOB
        else:
            reason = misfit.fault if misfit else ""
        survey.tried += 1
        _add_ranges(survey, seen.record, example_spec)
        if misfit is not None:
            survey.bad += 1
            name, example = misfit.field, _example(misfit, seen.record)
            if name is not None and not opening.has_fields(seen.record):
                name, reason = None, _NO_FIELDS
                example = opening.without_fields(seen.record, example_spec)
            elif reason == Fault.UNREADABLE:
                reason = f"{reason}: {type(misfit.error).__name__}"
            survey.faults.setdefault((name, reason), Found(example)).add(index)


class _Seen:
    """Records of which the last one that was read is kept."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.record: Any = None

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        self.record = self._records[index]
        return self.record  # type: ignore[no-any-return]


def _add_ranges(survey: Survey, record: Any, example_spec: Mapping[str, ArraySpec]) -> None:
    for name in example_spec:
        try:
            values = np.asarray(record[name])
            finite = values[np.isfinite(values)]
            ends = finite.min().item(), finite.max().item()
        except Exception:  # there are none, and `reading` has said why
            ends = None
        if ends is not None and values.dtype.kind in "biuf":
            least, greatest = survey.ranges.get(name, ends)
            survey.ranges[name] = min(least, ends[0]), max(greatest, ends[1])


def _example(misfit: Misfit, record: Any) -> str:
    if misfit.fault is Fault.NO_FIELD and isinstance(record, Mapping):
        text = f"it has {', '.join(map(repr, record)) or 'none'}"
    elif misfit.error is not None:
        error = misfit.error
        text = f"{type(error).__name__}: {error}{where_in_task(error)}"
    else:
        text = str(misfit)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
