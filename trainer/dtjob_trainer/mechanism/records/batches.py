"""From the ids of slots to micro-batches with masks (Rule 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dtjob_trainer.mechanism import coins
from dtjob_trainer.mechanism.records import reading
from dtjob_trainer.mechanism.records.reading import Array, Arrays
from dtjob_trainer.mechanism.records.scatter import PADDING
from dtjob_trainer.task import ArraySpec, Records
from dtjob_trainer.usercode.randomness import states

_PADDING_SEED = 0
_CPU = torch.device("cpu")  # whose generators a read finds


@dataclass(frozen=True)
class MicroBatch:
    """P rows, of which `mask` tells the drawn records from the padding.

    Attributes
    ----------
    fields
        {name: Tensor[P, *shape]}, of the dtypes of the task's `example_spec`.
    mask
        bool[P]; False for padding and for a record that contributes zero (Rule 20).
    """

    fields: dict[str, torch.Tensor]
    mask: torch.Tensor


def synthetic_examples(
    example_spec: Mapping[str, ArraySpec],
    count: int,
    generator: np.random.Generator,
) -> Arrays:
    """Draw `count` examples uniformly from the public ranges of `example_spec`.

    Returns
    -------
    dict
        {name: ndarray[count, *shape]}.
    """
    arrays: Arrays = {}
    for name, spec in example_spec.items():
        shape = (count, *spec.shape)
        if np.dtype(spec.dtype).kind == "f":
            # In halves: the width of float64's whole range is no float64.
            half: Array = generator.uniform(spec.low / 2, spec.high / 2, shape)
            values: Array = half * 2
        else:
            values = generator.integers(int(spec.low), int(spec.high), shape, endpoint=True)
        arrays[name] = values.astype(spec.dtype)
    return arrays


def padding_example(example_spec: Mapping[str, ArraySpec]) -> Arrays:
    """Return the example that padding rows hold, as a batch of one.

    It is never zeros: a model that divides by a norm gives NaN on them.
    """
    return synthetic_examples(example_spec, 1, np.random.default_rng(_PADDING_SEED))


def to_tensors(arrays: Arrays, device: torch.device) -> dict[str, torch.Tensor]:
    """Move arrays to the device, without a copy where that is the CPU."""
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


class BatchLoader:
    """Reads records into micro-batches.

    A record that is not drawn goes the whole way of one that is: read, converted, its range
    checked; then its row becomes padding. So does the row of a record that raises on being read,
    lacks a field, has another shape or kind of dtype, is not finite or leaves the range of
    `example_spec`: it contributes zero and is not counted (Rule 20).

    Parameters
    ----------
    records
        The private records.
    example_spec
        The public description of one example.
    key
        The attempt's key for loading: from it, draw and id come the random numbers of a read.
    device
        Where the tensors go.
    on_bad_record
        Called with the id of a record that contributes zero and what is wrong with it. Only for
        jobs that opted out of Rule 20 (`telemetry: NotCoveredByEpsilon`).
    """

    def __init__(
        self,
        records: Records,
        example_spec: Mapping[str, ArraySpec],
        key: bytes,
        device: torch.device,
        on_bad_record: Callable[[int, str], None] | None = None,
    ) -> None:
        self._records = records
        self._spec = dict(example_spec)
        self._key = key
        self._device = device
        self._on_bad_record = on_bad_record
        self._seeds_each = False
        self._padding = padding_example(self._spec)

    def micro_batch(
        self, draw: int, ids: npt.NDArray[np.int64], drawn: npt.NDArray[np.bool_]
    ) -> MicroBatch:
        """Read one micro-batch.

        Parameters
        ----------
        ids
            int64[P]: the record of each row, or `PADDING`.
        drawn
            bool[P]: the rows that count.
        """
        arrays: Arrays = {
            name: np.repeat(padding, len(ids), axis=0) for name, padding in self._padding.items()
        }
        whole = self._read_rows(arrays, draw, ids)
        self._refuse_out_of_range(arrays, whole, ids)
        mask = whole & drawn
        for name, padding in self._padding.items():
            arrays[name][~mask] = padding[0]
        return MicroBatch(
            fields=to_tensors(arrays, self._device),
            mask=torch.from_numpy(mask).to(self._device),
        )

    def _read_rows(
        self, arrays: Arrays, draw: int, ids: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Read the records of these rows; return which of them are whole.

        Seeding takes ten times as long as reading an array. So until a read has used a generator,
        the seed of the first serves them all; where one did, all are read anew with their own. A
        read that puts the generators back as they were is not noticed, and may share its numbers.
        """
        whole = np.zeros(len(ids), dtype=np.bool_)
        rows = np.flatnonzero(ids != PADDING)
        seeds = coins.read_seeds(self._key, draw, ids[rows]).tolist()
        before: dict[str, object] | None = None
        for row, index, seed in zip(rows.tolist(), ids[rows].tolist(), seeds, strict=True):
            if self._seeds_each or before is None:
                coins.begin_read(*seed)
                before = before or states(_CPU)
            whole[row] = self._read(arrays, row, index)
        if before is None or self._seeds_each or states(_CPU) == before:
            return whole
        self._seeds_each = True
        return self._read_rows(arrays, draw, ids)

    def _read(self, arrays: Arrays, row: int, index: int) -> bool:
        misfit = reading.read_into(arrays, row, self._records, index, self._spec)
        if misfit is not None and self._on_bad_record is not None:
            self._on_bad_record(index, str(misfit))
        return misfit is None

    def _refuse_out_of_range(
        self,
        arrays: Arrays,
        mask: npt.NDArray[np.bool_],
        ids: npt.NDArray[np.int64],
    ) -> None:
        """Take out of `mask` the rows with a value outside its range; NaN is outside any."""
        for name, spec in self._spec.items():
            inside = reading.inside(arrays[name], spec)
            if self._on_bad_record is not None:
                for row in np.flatnonzero(mask & ~inside).tolist():
                    misfit = reading.out_of_range(name, arrays[name][row], spec)
                    self._on_bad_record(int(ids[row]), str(misfit))
            mask &= inside
