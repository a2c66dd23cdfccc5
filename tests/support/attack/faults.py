"""The real step with one fault each, as somebody might make it; `unittest.mock` takes it back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
import torch

from dtjob_accounting import draws
from dtjob_trainer.mechanism import clipping, step
from dtjob_trainer.mechanism.clipping import ClippedSum
from dtjob_trainer.mechanism.noise import Lattice
from dtjob_trainer.mechanism.records.batches import BatchLoader
from dtjob_trainer.mechanism.records.sampling import Reading
from dtjob_trainer.mechanism.records.scatter import PADDING, Layout, Slots, random_order, scatter
from dtjob_trainer.mechanism.watch import exchange

Fault = Callable[[], AbstractContextManager[Any]]

_noised, _update = Lattice.noised, step.PrivateStep._update
_sum_gradients, _noised_slice = step.PrivateStep._sum_gradients, step.PrivateStep._noised
_micro_batch, _threshold = BatchLoader.micro_batch, draws.sampling_threshold


def _in_slots(ids: Any, drawn: Any, layout: Layout) -> Slots:
    whole = np.full(layout.slots, PADDING)
    counts = np.zeros(layout.slots, dtype=np.bool_)
    whole[: len(ids)], counts[: len(ids)] = ids, drawn
    return Slots(whole.reshape(layout), counts.reshape(layout))


def dealt() -> AbstractContextManager[Any]:
    """Records fill the slots in the order of their ids."""

    def deal(_key: bytes, _draw: int, reading: Reading, layout: Layout) -> Slots:
        return _in_slots(*reading, layout)

    return mock.patch.object(step, "scatter", deal)


def not_exchanged() -> AbstractContextManager[Any]:
    """Nothing is looked for among the rows of records."""
    return mock.patch.object(exchange, "check", return_value=None)


def shuffled() -> AbstractContextManager[Any]:
    """Records fill the first slots, in random order."""

    def shuffle(key: bytes, draw: int, reading: Reading, layout: Layout) -> Slots:
        order = random_order(key, draw, len(reading.ids))
        return _in_slots(reading.ids[order], reading.drawn[order], layout)

    return mock.patch.object(step, "scatter", shuffle)


def dropped() -> AbstractContextManager[Any]:
    """What overflows the slots is left out."""

    def cut(key: bytes, draw: int, reading: Reading, layout: Layout) -> Slots:
        slots = scatter(key, draw, reading, layout)
        first = slice(layout.micro_batches)
        return Slots(slots.ids[:, first], slots.drawn[:, first])

    return mock.patch.object(step, "scatter", cut)


def quieter() -> AbstractContextManager[Any]:
    """Noise of 0.9·σC."""

    def noised(self: Lattice, *given: Any) -> Any:
        return _noised(
            dataclasses.replace(self, noise_multiplier=0.9 * self.noise_multiplier), *given
        )

    return mock.patch.object(Lattice, "noised", noised)


def now_and_then() -> AbstractContextManager[Any]:
    """No noise at each tenth draw."""

    def noised(self: Lattice, total: Any, key: bytes, draw: int, start: int) -> Any:
        return total if draw % 10 == 9 else _noised(self, total, key, draw, start)

    return mock.patch.object(Lattice, "noised", noised)


def again() -> AbstractContextManager[Any]:
    """The same noise for six draws."""

    def noised(self: Lattice, total: Any, key: bytes, draw: int, start: int) -> Any:
        return _noised(self, total, key, draw // 6, start)

    return mock.patch.object(Lattice, "noised", noised)


def in_part() -> AbstractContextManager[Any]:
    """No noise in the second half of the coordinates."""

    def noised(self: Lattice, total: Any, key: bytes, draw: int, start: int) -> Any:
        half = len(total) // 2
        return np.append(_noised(self, total[:half], key, draw, start), total[half:])

    return mock.patch.object(Lattice, "noised", noised)


def unclipped() -> AbstractContextManager[Any]:
    """Gradients of any length."""
    return mock.patch.object(clipping, "clipped_norm", return_value=math.inf)


def clipped_together() -> AbstractContextManager[Any]:
    """The sum of a micro-batch is clipped, and no example's gradient."""

    def accumulate(self: ClippedSum, gradients: Any, mask: torch.Tensor) -> None:
        rows = torch.cat([g.masked_fill(~mask[:, None], 0.0) for g in gradients], 1).double()
        total = rows.sum(0)
        self.flat += total * (self._clip_to / total.norm()).clamp(max=1.0)

    return mock.patch.object(ClippedSum, "accumulate", accumulate)


def clipped_by_layer() -> AbstractContextManager[Any]:
    """Each parameter's gradient is clipped to C by itself."""

    def accumulate(self: ClippedSum, gradients: Any, mask: torch.Tensor) -> None:
        for flat, rows in zip(self._slices, gradients, strict=True):
            factors = (self._clip_to / rows.norm(dim=1)).clamp(max=1.0) * mask
            self.flat[flat] += (factors[:, None] * rows).sum(0)

    return mock.patch.object(ClippedSum, "accumulate", accumulate)


def padding_counted() -> AbstractContextManager[Any]:
    """Padding rows count like records."""

    def micro_batch(self: BatchLoader, *given: Any) -> Any:
        batch = _micro_batch(self, *given)
        return dataclasses.replace(batch, mask=torch.ones_like(batch.mask))

    return mock.patch.object(BatchLoader, "micro_batch", micro_batch)


def by_real_number() -> AbstractContextManager[Any]:
    """The noised sum is divided by the number of records that there are."""

    def update(self: step.PrivateStep, mean: torch.Tensor, rate: float) -> None:
        _update(self, mean * (self._sampler.batch_size / self._dataset_size), rate)

    return mock.patch.object(step.PrivateStep, "_update", update)


def drawn_twice_as_often() -> AbstractContextManager[Any]:
    """Records are drawn at 2q."""
    return mock.patch.object(
        draws, "sampling_threshold", lambda batch, size: _threshold(2 * batch, size)
    )


def of_one_rank() -> AbstractContextManager[Any]:
    """Rank 0 alone noises the slice that it owns."""

    def noised(self: step.PrivateStep, own: torch.Tensor, draw: int) -> torch.Tensor:
        return own.float() if self._group.rank else _noised_slice(self, own, draw)

    return mock.patch.object(step.PrivateStep, "_noised", noised)


@contextlib.contextmanager
def of_each_part() -> Iterator[None]:
    """Each of W ranks noises its part of the sum, by σC/W: σC/√W in all."""

    def sum_gradients(self: step.PrivateStep, draw: int) -> None:
        _sum_gradients(self, draw)
        if self._lattice is not None:
            key = hashlib.sha256(self._keys.noise + bytes([self._group.rank])).digest()
            flat = self._sum.flat
            noise = _noised(self._lattice, np.zeros(len(flat)), key, draw, 0)
            flat += torch.from_numpy(noise) / self._group.world_size

    with (
        mock.patch.object(step.PrivateStep, "_sum_gradients", sum_gradients),
        mock.patch.object(step.PrivateStep, "_noised", lambda _self, own, _draw: own.float()),
    ):
        yield
